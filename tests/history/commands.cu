// Histories of doorbells: threads that submit commands to a worker, cancel some and collect the answers, while the worker leaves
// and comes again, is stopped, paused and started; all of it checked afterwards. With GMB_CHAOS there are random delays inside.
// And what is in bells.h.
//   nvcc -arch=native -O3 -std=c++17 -Iinclude tests/history/commands.cu -lgpumailbox -o commands && ./commands SEED OPERATIONS
//   c++ -O3 -std=c++17 -pthread -Iinclude -x c++ tests/history/commands.cu -lgpumailbox -o commands      (the host backend)
#include "bells.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr uint32_t most_senders = 6, most_each = 3000;

uint64_t now() {
  return static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}

/* What became of a command. Nobody knows of one whose answer was not collected. */
enum class ending { unknown, done, cancelled, not_served };

struct sent {
  uint64_t name;       /* sender and its count: the first argument */
  uint64_t start, end; /* of its submission */
  uint64_t id;         /* zero: it has none */
  uint64_t echo;       /* what its answer must hold */
  uint32_t code;
  bool cancelled; /* it was asked for */
  ending how;
  uint64_t number;
};

/* One thread: submits, cancels, collects, by chance. */
class sender {
 public:
  std::vector<sent> all;
  std::string wrong;

  sender(gmb_doorbell bell, uint64_t number, uint32_t count, uint64_t seed)
      : bell_(bell), number_(number), count_(count), random_(seed) {
    all.reserve(count);
  }
  void run() {
    try {
      /* A command that found no room is tried again under the same name: had it been done, it would be there twice. */
      for (const uint64_t began = now(); all.size() < count_;) {
        if (now() - began > 3 * too_long_ns) throw std::runtime_error("there is no room for commands any more");
        one();
      }
      while (!out_.empty()) collect();
    } catch (const std::exception &problem) {
      wrong = "sender " + std::to_string(number_) + ": " + problem.what();
    }
  }

 private:
  gmb_doorbell bell_;
  uint64_t number_;
  uint32_t count_;
  std::mt19937_64 random_;
  std::vector<size_t> out_; /* submitted and not collected */

  void one() {
    if (!out_.empty() && (out_.size() >= 8 || random_() % 3 == 0)) collect();
    if (!out_.empty() && random_() % 6 == 0) cancel();
    gmb_command what = {};
    what.code = GMB_COMMAND_USER + static_cast<uint32_t>(random_() % commands::codes);
    what.argument[0] = number_ << 32 | all.size();
    what.argument[1] = random_();
    what.argument[2] = random_();
    sent made = {};
    made.name = what.argument[0];
    made.code = what.code;
    made.echo = mix(what.argument[0] ^ mix(what.argument[1] ^ mix(what.argument[2])));
    const uint32_t kind = static_cast<uint32_t>(random_() % 10);
    const uint64_t short_ns = random_() % 2 == 0 ? 0 : random_() % 200000;
    gmb_status told = GMB_OK;
    gmb_answer answer = {};
    made.start = now();
    if (kind == 0) {
      told = gmb_doorbell_submit(bell_, &what, short_ns, nullptr);
    } else if (kind == 1) {
      told = gmb_doorbell_call(bell_, &what, random_() % 200000, &answer);
    } else if (kind == 2 && out_.empty()) {
      /* Not with some of its own under way: all senders could wait for room so. */
      told = gmb_doorbell_call(bell_, &what, too_long_ns, &answer);
      if (told == GMB_ERROR_TIMEOUT) throw std::runtime_error("an answer is lost");
    } else {
      gmb_command_id id = {0};
      told = gmb_doorbell_submit(bell_, &what, short_ns, &id);
      made.id = id.id;
      if (told == GMB_OK && id.id == 0) throw std::runtime_error("a command without a number");
    }
    made.end = now();
    if (told == GMB_ERROR_FULL) {
      if (out_.empty()) std::this_thread::yield();
      else collect();
      return;
    }
    if (told != GMB_ERROR_TIMEOUT || kind != 1) OK(told);
    all.push_back(made);
    if (made.id != 0) out_.push_back(all.size() - 1);
    else if (kind != 0 && told == GMB_OK) note(all.back(), answer);
  }

  void cancel() {
    sent &mine = all[out_[random_() % out_.size()]];
    mine.cancelled = true;
    OK(gmb_doorbell_cancel(bell_, {mine.id}));
  }

  void collect() {
    const size_t which = random_() % out_.size();
    sent &mine = all[out_[which]];
    std::swap(out_[which], out_.back());
    out_.pop_back();
    gmb_answer answer = {};
    const gmb_status told = gmb_doorbell_wait(bell_, {mine.id}, too_long_ns, &answer);
    if (told == GMB_ERROR_TIMEOUT) throw std::runtime_error("an answer is lost");
    OK(told);
    note(mine, answer);
    if (random_() % 8 == 0 && gmb_doorbell_wait(bell_, {mine.id}, 0, &answer) != GMB_ERROR_INVALID_ARGUMENT)
      throw std::runtime_error("an answer came twice");
  }

  void note(sent &mine, const gmb_answer &answer) {
    const bool empty = answer.flags == 0 && answer.value[0] == 0 && answer.value[1] == 0 && answer.value[2] == 0;
    if (answer.status == GMB_OK) {
      if (answer.flags != mine.code || answer.value[1] != mine.name || answer.value[2] != mine.echo)
        throw std::runtime_error("another command's answer, or a torn one");
      mine.how = ending::done;
      mine.number = answer.value[0];
    } else if (answer.status == GMB_ERROR_CANCELLED && empty) {
      if (!mine.cancelled) throw std::runtime_error("cancelled, and nobody has asked for that");
      mine.how = ending::cancelled;
    } else if (answer.status == GMB_ERROR_NOT_SERVED && empty) {
      mine.how = ending::not_served;
    } else {
      throw std::runtime_error(std::string("an answer nobody gave: ") + gmb_status_name(answer.status));
    }
  }
};

/* How many commands of a round ended how. */
struct counts {
  uint64_t all, done, cancelled, not_served, unknown;
};

/* What is wrong, or nothing. `log` is what the worker did, in its order. */
std::string check(const std::vector<sender> &senders, const std::vector<uint64_t> &log, counts &found) {
  for (const sender &one : senders) {
    if (!one.wrong.empty()) return one.wrong;
  }
  constexpr uint64_t never = ~0ull;
  std::vector<std::vector<uint64_t>> numbers;
  for (const sender &one : senders) numbers.emplace_back(one.all.size(), never);
  std::vector<uint64_t> next(senders.size());
  for (uint64_t number = 0; number < log.size(); ++number) {
    const uint64_t from = log[number] >> 32, n = log[number] & 0xffffffffu;
    if (from >= senders.size() || n >= numbers[from].size()) return "a command was done that nobody has submitted";
    /* Never one that was before, nor the same again. */
    if (n < next[from]) return "done twice, or after a later one of its sender: number " + std::to_string(number);
    next[from] = n + 1;
    numbers[from][n] = number;
  }
  std::vector<const sent *> known;
  for (size_t from = 0; from < senders.size(); ++from) {
    for (const sent &one : senders[from].all) {
      const uint64_t number = numbers[from][one.name & 0xffffffffu];
      ++found.all;
      if (one.id != 0) known.push_back(&one);
      if (one.how == ending::unknown) {
        ++found.unknown;
        continue;
      }
      (one.how == ending::done ? found.done : one.how == ending::cancelled ? found.cancelled : found.not_served)++;
      if (one.how == ending::done && number != one.number) return "an answer tells of another number than the command got";
      if (one.how != ending::done && number != never) return "done, and the answer says that it was not";
    }
  }
  /* They are taken in the order of their ids, and that is one in which they could have been submitted. */
  std::sort(known.begin(), known.end(), [](const sent *a, const sent *b) { return a->id < b->id; });
  uint64_t latest = 0, least = 0, last = 0;
  for (const sent *one : known) {
    if (one->id == last) return "two commands have one id";
    last = one->id;
    if (one->end < latest) return "its submission had returned when that of an earlier one began";
    latest = std::max(latest, one->start);
    if (one->how != ending::done) continue;
    if (one->number < least) return "done before one that was submitted earlier";
    least = one->number + 1;
  }
  return "";
}

void sleep_us(uint64_t us) { std::this_thread::sleep_for(std::chrono::microseconds(us)); }

/* Until all senders have ended: stops and starts the worker, or lets it pause, or lets it be. */
uint64_t disturb(gmb_worker worker, std::mt19937_64 &random, const std::atomic<uint32_t> &at_work) {
  uint64_t slices = 0;
  const auto end = [&] {
    gmb_worker_result result = {};
    OK(gmb_worker_stop(worker));
    OK(gmb_worker_wait(worker, too_long_ns, &result));
    if (result.reason != GMB_WORKER_STOPPED) throw std::runtime_error("the worker has ended by itself");
    slices += result.slices;
  };
  OK(gmb_worker_start(worker));
  while (at_work != 0) {
    sleep_us(random() % 3000);
    const uint32_t what = static_cast<uint32_t>(random() % 4);
    if (what == 0) {
      end();
      if (random() % 2 == 0) sleep_us(random() % 1000);
      OK(gmb_worker_start(worker));
    } else if (what == 1) {
      OK(gmb_worker_pause(worker));
      sleep_us(random() % 1000);
      OK(gmb_worker_resume(worker));
    }
  }
  end();
  return slices;
}

struct outcome {
  std::string name, wrong;
  counts found;
  uint64_t slices;
};

outcome run(gmb_context context, shared_book &in, std::mt19937_64 &random) {
  const uint32_t senders = 1 + static_cast<uint32_t>(random() % most_senders);
  const uint32_t each = 500 + static_cast<uint32_t>(random() % (most_each - 500));
  outcome told = {};
  owners own;
  gmb_queue_options few = GMB_QUEUE_OPTIONS_INIT;
  few.item_bytes = 4;
  few.capacity = 64;
  OK(gmb_queue_create(context, &few, &own.none));
  gmb_doorbell_options bells = GMB_DOORBELL_OPTIONS_INIT;
  bells.capacity = 1ull << random() % 8;
  OK(gmb_doorbell_create(context, &bells, &own.bell));
  gmb_worker_options options = GMB_WORKER_OPTIONS_INIT;
  options.active = own.none;
  options.doorbell = own.bell;
  options.function = function();
  options.user = in.at();
  options.slice_ns = 20000 + random() % 2000000;
  OK(gmb_worker_create(&options, &own.worker));
  told.name = std::to_string(senders) + " senders of " + std::to_string(each) + " commands, " + std::to_string(bells.capacity) +
              " at once, slices of " + std::to_string(options.slice_ns) + " ns";
  in.clear();
  std::vector<sender> all;
  for (uint32_t i = 0; i < senders; ++i) all.emplace_back(own.bell, i, each, random());
  std::atomic<uint32_t> at_work{senders};
  std::vector<std::thread> threads;
  for (sender &one : all) {
    threads.emplace_back([&] {
      one.run();
      --at_work;
    });
  }
  std::string failed;
  try {
    told.slices = disturb(own.worker, random, at_work);
  } catch (const std::exception &problem) {
    failed = problem.what();
    /* Who waits for an answer gets one of these. */
    gmb_worker_destroy(own.worker);
    gmb_doorbell_destroy(own.bell);
    own.worker = {};
    own.bell = {};
  }
  for (std::thread &one : threads) one.join();
  if (!failed.empty()) throw std::runtime_error(told.name + ": " + failed);
  told.wrong = check(all, in.log(), told.found);
  gmb_doorbell_info info = {};
  OK(gmb_doorbell_get_info(own.bell, &info, sizeof info));
  if (told.wrong.empty() && info.submitted != told.found.all) told.wrong = "the doorbell counts other submissions";
  if (told.wrong.empty() && info.outstanding > told.found.unknown) told.wrong = "the doorbell holds answers that were collected";
  return told;
}

int check_all(uint64_t seed, uint64_t operations) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
#if defined(__CUDACC__)
  CHECK(cudaSetDevice(0));
  CHECK(cudaFree(nullptr));
#endif
  std::mt19937_64 random(seed);
  gmb_context_options options = GMB_CONTEXT_OPTIONS_INIT;
  options.backend = backend;
  gmb_context context = {};
  OK(gmb_context_create(&options, &context));
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  check_rare_looks(context);
  check_full_ring(context, operations < 100000 ? 10 * operations : 1000000);
  counts all = {};
  uint64_t slices = 0;
  int rounds = 0, failed = 0;
  {
    shared_book in(uint64_t{most_senders} * most_each);
    while (all.all < operations && failed == 0) {
      const outcome one = run(context, in, random);
      all.all += one.found.all;
      all.done += one.found.done;
      all.cancelled += one.found.cancelled;
      all.not_served += one.found.not_served;
      all.unknown += one.found.unknown;
      slices += one.slices;
      ++rounds;
      if (one.wrong.empty()) continue;
      std::printf("FAIL %s: %s\n", one.name.c_str(), one.wrong.c_str());
      ++failed;
    }
  }
  OK(gmb_context_destroy(context));
  const auto number = [](uint64_t n) { return static_cast<unsigned long long>(n); };
  std::printf("%llu done, %llu cancelled, %llu not served, %llu whose answers nobody collected; %llu slices\n", number(all.done),
              number(all.cancelled), number(all.not_served), number(all.unknown), number(slices));
  std::printf("%llu operations succeeded in %d rounds, %llu records; 0 of them were launches; %d failed\n", number(all.all), rounds,
              number(all.done), failed);
  return failed != 0;
}

}  // namespace

int main(int argc, char **argv) {
  try {
    return check_all(argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1, argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1000000);
  } catch (const std::exception &problem) {
    std::fprintf(stderr, "error: %s\n", problem.what());
    return 1;
  }
}
