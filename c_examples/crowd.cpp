// A crowd on one shared mailbox: warps of one kernel push, warps of another pop, and the CPU pushes and pops beside them with
// gmb_mailbox_push and gmb_mailbox_pop. Afterwards the CPU checks that every record came exactly once, as it was pushed,
// and those of each producer in their order.
//
//   crowd [MEMBERS [RECORDS]]   producers, and as many consumers; records that each pushes
//
// On the host backend the members are CPU threads.
#include "crowd.h"
#include "running.hpp"

#include <algorithm>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr uint64_t capacity = 1024;
constexpr uint32_t cpu_records = 2000;
constexpr uint32_t cpu_batch = 50;
constexpr uint32_t most_tries = 10'000;
constexpr uint32_t most_cpu_rounds = 1'000'000;

// The CPU as a member: on a stream of its own, with records in pinned memory.
class cpu_member {
 public:
  cpu_member(const gmb::context &context, const gmb::mailbox &box, uint32_t who)
      : box_(box),
        who_(who),
        // Before the blocks of a crowd that does not fit the device.
        stream_(check(gmb::stream::create(context, GMB_PRIORITY_FOCUS))),
        pushed_(check(gmb::token::create(context))),
        popped_(check(gmb::token::create(context))),
        out_(check(gmb::pinned_buffer<crowd::record>::create(context, cpu_batch))),
        in_(check(gmb::pinned_buffer<crowd::record>::create(context, cpu_batch))),
        headers_(check(gmb::pinned_buffer<gmb_record_header>::create(context, cpu_batch))) {}

  // Pushes what is left, and pops; how many records came.
  uint32_t round(std::vector<crowd::found> &log) {
    const uint32_t count = std::min(cpu_batch, cpu_records - pushed);
    if (count > 0) {
      for (uint32_t i = 0; i < count; ++i) {
        for (uint32_t w = 0; w < crowd::words; ++w) out_[i].word[w] = crowd::word_of(who_, pushed + i, w);
      }
      gmb_push push = gmb::push_of(out_.view(0, count));
      push.msg_type = who_;
      check(box_.push(push, stream_, pushed_));
    }
    check(box_.pop(gmb::pop_into(in_.view(), 0, headers_.view()), stream_, popped_));
    if (count > 0) {
      const gmb_result result = check(pushed_.wait());
      check(gmb::status::of(result));
      pushed += result.count;
    }
    const gmb_result result = check(popped_.wait());
    check(gmb::status::of(result));
    for (uint32_t i = 0; i < result.count; ++i) {
      const gmb_record_header &header = headers_[i];
      must(header.sequence - 1 < log.size() && header.length == sizeof(crowd::record), "a record that nobody has pushed");
      crowd::found &entry = log[header.sequence - 1];
      for (uint32_t w = 0; w < crowd::words; ++w) entry.sum += uint64_t{w + 1} * in_[i].word[w];
      entry.who = header.msg_type;
      entry.number = in_[i].word[1];
      ++entry.times;
    }
    popped += result.count;
    return result.count;
  }

  uint32_t pushed = 0;
  uint32_t popped = 0;

 private:
  const gmb::mailbox &box_;
  uint32_t who_;
  gmb::stream stream_;
  gmb::token pushed_, popped_;
  gmb::pinned_buffer<crowd::record> out_, in_;
  gmb::pinned_buffer<gmb_record_header> headers_;
};

void run_members(const gmb::context &context, const crowd::job &all) {
  const bool on_gpu = running::is_on_gpu(context);
#if defined(GMB_EXAMPLE_CUDA)
  if (on_gpu) {
    const gmb::stream producing = check(gmb::stream::create(context)), consuming = check(gmb::stream::create(context));
    const char *error = crowd::launch(all, producing.get(), consuming.get());
    must(error == nullptr, error);
    check(producing.synchronize());
    check(consuming.synchronize());
    return;
  }
#endif
  static_cast<void>(on_gpu);
  std::vector<std::thread> threads;
  for (uint32_t me = 0; me < all.members; ++me) {
    threads.emplace_back([&all, me] {
      crowd::scratch rows;
      crowd::produce(running::worker{}, all, me, rows);
    });
    threads.emplace_back([&all, me] {
      crowd::scratch rows;
      crowd::consume(running::worker{}, all, me, rows);
    });
  }
  for (std::thread &thread : threads) thread.join();
}

// Device memory as the kernels left it.
template <class T> std::vector<T> left_in(const gmb::context &context, const gmb::device_buffer<T> &from) {
  std::vector<T> made(from.size());
  check(context.copy(made.data(), from.data(), from.bytes(), nullptr));
  check(gmb::status(gmb_stream_synchronize(context.get(), nullptr)));
  return made;
}

// The sum of a record's words, once more: from the formula's parts, not from words.
uint64_t sum_of(uint32_t who, uint32_t number) {
  const uint32_t noise = (who * 2654435769u) ^ (number * 2246822507u);
  uint64_t sum = who + 2 * uint64_t{number};
  uint32_t word = noise + 3266489909u;
  for (uint64_t factor = 3; factor <= crowd::words; ++factor) sum += factor * (word += 3266489909u);
  return sum;
}

// Every index exactly once, each record whole, each producer's in their order without a gap.
bool check_log(const std::vector<crowd::found> &by_kernels, const std::vector<crowd::found> &by_cpu,
               const std::vector<uint32_t> &pushed, uint64_t published) {
  std::vector<uint32_t> next(pushed.size());
  for (uint64_t i = 0; i < by_kernels.size(); ++i) {
    const crowd::found &got = by_cpu[i].times > 0 ? by_cpu[i] : by_kernels[i];
    const uint32_t times = by_kernels[i].times + by_cpu[i].times;
    const auto wrong = [&](const char *what) {
      std::fprintf(stderr, "index %" PRIu64 " (producer %u, its record %u): %s\n", i, got.who, got.number, what);
      return false;
    };
    if (times != (i < published ? 1 : 0)) return wrong(times == 0 ? "it never came" : "it came too often");
    if (i >= published) continue;
    if (got.who >= pushed.size()) return wrong("there is no such producer");
    if (got.number != next[got.who]) return wrong("not in its producer's order");
    if (got.sum != sum_of(got.who, got.number)) return wrong("its words are others");
    ++next[got.who];
  }
  for (size_t who = 0; who < pushed.size(); ++who) {
    if (next[who] == pushed[who]) continue;
    std::fprintf(stderr, "producer %zu pushed %u records, and %u came\n", who, pushed[who], next[who]);
    return false;
  }
  return true;
}

uint32_t number(const char *text, unsigned long most) {
  char *end = nullptr;
  const unsigned long value = std::strtoul(text, &end, 10);
  must(end != text && *end == '\0' && value > 0 && value <= most, "crowd [MEMBERS [RECORDS]]: numbers from 1 on");
  return static_cast<uint32_t>(value);
}

}  // namespace

int main(int argc, char **argv) {
  const auto context = check(gmb::context::create(has_kernels ? GMB_BACKEND_AUTO : GMB_BACKEND_HOST));
  const bool on_gpu = running::is_on_gpu(context);
  must(argc <= 3, "crowd [MEMBERS [RECORDS]]");
  const uint32_t members = argc > 1 ? number(argv[1], on_gpu ? 1'000'000 : 64) : on_gpu ? 256 : 3;
  const uint32_t each = argc > 2 ? number(argv[2], 100'000) : 1000;

  auto options = gmb::mailbox_options::of<crowd::record>(capacity).with_shared().with_arbitration(GMB_ARBITRATION_DEVICE);
  const auto box = check(gmb::mailbox::create(context, options));
  const uint64_t most = uint64_t{members} * each + cpu_records;
  const auto log = running::zeroed<crowd::found>(context, most);
  const auto producers = running::zeroed<crowd::tally>(context, members);
  const auto consumers = running::zeroed<crowd::tally>(context, members);
  const crowd::job all{check(box.info()).ring, log.data(), most, producers.data(),
                       consumers.data(), members, each, most_tries};
  cpu_member cpu(context, box, members);
  std::vector<crowd::found> cpu_log(most);

  auto members_end = std::async(std::launch::async, [&] { run_members(context, all); });
  bool ended = false;
  for (uint32_t rounds = 0; !ended || cpu.pushed < cpu_records; ++rounds) {
    must(rounds < most_cpu_rounds, "the CPU found no room, or the kernels did not end");
    // Looked at first: what comes in a round after their end is all there is.
    ended = members_end.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
    cpu.round(cpu_log);
  }
  members_end.get();
  while (cpu.round(cpu_log) > 0) {
  }

  uint64_t pushed = 0, popped = 0, gave_up = 0;
  std::vector<uint32_t> pushed_by;
  for (const crowd::tally &told : left_in(context, producers)) {
    must(told.status == GMB_OK, gmb_status_string(told.status));
    pushed += told.moved;
    gave_up += told.moved < each;
    pushed_by.push_back(told.moved);
  }
  for (const crowd::tally &told : left_in(context, consumers)) {
    must(told.status == GMB_OK, gmb_status_string(told.status));
    must(told.strange == 0, "a consumer got records that nobody has pushed");
    popped += told.moved;
  }
  pushed_by.push_back(cpu.pushed);
  std::printf("%u producers: pushed %" PRIu64 " records; %" PRIu64 " gave up before their last\n", members, pushed, gave_up);
  std::printf("%u consumers: popped %" PRIu64 "\nthe CPU: pushed %u, popped %u\n", members, popped, cpu.pushed, cpu.popped);
  must(pushed > 0 && cpu.pushed == cpu_records, "nothing was pushed");
  if (!check_log(left_in(context, log), cpu_log, pushed_by, pushed + cpu.pushed)) return 1;
  must(popped + cpu.popped == pushed + cpu.pushed, "the members' counts are not those of the log");
  std::printf("ok: %" PRIu64 " records, each exactly once and in its producer's order, backend=%s\n", pushed + cpu.pushed,
              on_gpu ? "cuda" : "host");
  return 0;
}
