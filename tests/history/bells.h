/* Two checks beside the histories: of a kernel that looks at its doorbell rarely, and of a doorbell that is full all the time. */
#ifndef GMB_TESTS_HISTORY_BELLS_H
#define GMB_TESTS_HISTORY_BELLS_H

#include "clerk.h"

#include <algorithm>
#include <deque>
#include <thread>

namespace commands {

/* Words of pinned memory between the host and who looks rarely. */
enum rarely : uint32_t { looks, may_look, found, rarely_words };

/* Looks at a doorbell once for each word of the host's, which then has submitted a command before. */
template <class Group> GMB_HD void look_rarely(const Group &group, gmb_doorbell_header *at, uint64_t *word, uint64_t times) {
  gmb::device::doorbell bell(at);
  gmb::device::command got;
  bool early = bell.try_take(group, got);
  uint64_t taken = 0;
  for (uint64_t n = 1; n <= times; ++n) {
    if (group.lane() == 0) gmb::ring::store_system(word + looks, n);
    while (gmb::ring::load_system(word + may_look) < n) {
    }
    gmb::ring::fence_system();
    group.sync();
    if (!bell.try_take(group, got)) continue;
    ++taken;
    const gmb_answer answer = {GMB_OK, 0, {got.what.argument[0], 0, 0}};
    bell.answer(group, got.ticket, answer);
    early = bell.try_take(group, got) || early;
  }
  if (group.lane() == 0) gmb::ring::store_system(word + found, early ? times + 1 : taken);
}

}  // namespace commands

#if defined(__CUDACC__)
__global__ void rare_looks(gmb_doorbell_header *at, uint64_t *word, uint64_t times) {
  commands::look_rarely(gmb::device::one_warp(), at, word, times);
}
#endif

namespace {

/* Whatever was submitted before a look is found by it, however long ago the look before was. */
void check_rare_looks(gmb_context context) {
  constexpr uint64_t times = 100;
  struct owner {
    gmb_context context;
    gmb_doorbell bell{};
    void *word = nullptr;
    std::thread thread{};
    ~owner() {
      if (thread.joinable()) thread.join();
      if (bell.id != 0) gmb_doorbell_destroy(bell);
      gmb_pinned_free(context, word);
    }
  } own{context};
  gmb_doorbell_options options = GMB_DOORBELL_OPTIONS_INIT;
  OK(gmb_doorbell_create(context, &options, &own.bell));
  OK(gmb_pinned_allocate(context, commands::rarely_words * sizeof(uint64_t), &own.word));
  gmb_doorbell_info info = {};
  OK(gmb_doorbell_get_info(own.bell, &info, sizeof info));
  uint64_t *const word = static_cast<uint64_t *>(own.word);
  std::fill(word, word + commands::rarely_words, 0);
#if defined(__CUDACC__)
  rare_looks<<<1, 32>>>(info.doorbell, word, times);
  CHECK(cudaGetLastError());
  own.thread = std::thread([] { cudaDeviceSynchronize(); });
#else
  own.thread = std::thread([&] { commands::look_rarely(gmb::ring::one_thread(), info.doorbell, word, times); });
#endif
  std::string wrong;
  for (uint64_t n = 1; n <= times; ++n) {
    while (gmb::ring::load_system(word + commands::looks) < n) std::this_thread::yield();
    const gmb_command what = {GMB_COMMAND_USER, 0, {n, 0, 0}};
    const gmb_status told = gmb_doorbell_submit(own.bell, &what, 0, nullptr);
    if (told != GMB_OK && wrong.empty()) wrong = std::string("a command was not submitted: ") + gmb_status_name(told);
    gmb::ring::store_system(word + commands::may_look, n);
  }
  own.thread.join();
  if (wrong.empty() && gmb::ring::load_system(word + commands::found) != times) wrong = "a look did not find what was submitted before it";
  if (!wrong.empty()) throw std::runtime_error(wrong);
}

/* So many commands, and room for a few: as many are under way as there is room for, all the time. None is lost, done twice or
 * before an earlier one. */
void check_full_ring(gmb_context context, uint64_t commands) {
  constexpr uint64_t room = 64;
  shared_book in(commands);
  owners own;
  gmb_queue_options few = GMB_QUEUE_OPTIONS_INIT;
  few.item_bytes = 4;
  few.capacity = 64;
  OK(gmb_queue_create(context, &few, &own.none));
  gmb_doorbell_options bells = GMB_DOORBELL_OPTIONS_INIT;
  bells.capacity = room;
  OK(gmb_doorbell_create(context, &bells, &own.bell));
  gmb_worker_options options = GMB_WORKER_OPTIONS_INIT;
  options.active = own.none;
  options.doorbell = own.bell;
  options.function = function();
  options.user = in.at();
  OK(gmb_worker_create(&options, &own.worker));
  uint64_t found_full = 0;
  struct sent {
    gmb_command_id id;
    gmb_command what;
    uint64_t number;
  };
  std::deque<sent> out;
  const auto collect = [&] {
    const sent one = out.front();
    out.pop_front();
    gmb_answer answer = {};
    OK(gmb_doorbell_wait(own.bell, one.id, too_long_ns, &answer));
    const gmb_command &what = one.what;
    if (answer.status != GMB_OK || answer.value[0] != one.number || answer.value[1] != what.argument[0] ||
        answer.value[2] != mix(what.argument[0] ^ mix(what.argument[1] ^ mix(what.argument[2]))))
      throw std::runtime_error("a full doorbell: command " + std::to_string(one.number) + " has another answer than its own");
  };
  for (uint64_t n = 0; n < commands; ++n) {
    const gmb_command what = {GMB_COMMAND_USER, 0, {n, ~n, mix(n)}};
    gmb_command_id id = {};
    /* Of every third nobody wants the answer. */
    gmb_command_id *const wanted = n % 3 != 0 ? &id : nullptr;
    gmb_status told = gmb_doorbell_submit(own.bell, &what, 0, wanted);
    if (n == room) OK(gmb_worker_start(own.worker));
    for (; told == GMB_ERROR_FULL; told = gmb_doorbell_submit(own.bell, &what, out.empty() ? too_long_ns : 0, wanted)) {
      ++found_full;
      if (!out.empty()) collect();
    }
    OK(told);
    if (wanted) out.push_back({id, what, n});
  }
  while (!out.empty()) collect();
  const gmb_command last = {GMB_COMMAND_PING, 0, {0, 0, 0}};
  gmb_answer answer = {};
  OK(gmb_doorbell_call(own.bell, &last, too_long_ns, &answer));
  gmb_worker_result result = {};
  OK(gmb_worker_stop(own.worker));
  OK(gmb_worker_wait(own.worker, too_long_ns, &result));
  const std::vector<uint64_t> log = in.log();
  for (uint64_t n = 0; n < log.size(); ++n) {
    if (log[n] != n) throw std::runtime_error("a full doorbell: lost, done twice or in another order: command " + std::to_string(n));
  }
  if (log.size() != commands) throw std::runtime_error("a full doorbell: its last commands are lost");
  if (found_full < commands / 8) throw std::runtime_error("the doorbell was seldom full");
  std::printf("%llu commands through a doorbell that was full %llu times, in their order\n", static_cast<unsigned long long>(commands),
              static_cast<unsigned long long>(found_full));
}

}  // namespace

#endif
