/* What the checks of commands share: a worker's functor that writes down what it does, and the handles. */
#ifndef GMB_TESTS_HISTORY_CLERK_H
#define GMB_TESTS_HISTORY_CLERK_H

#include <gpumailbox.h>
#include <gpumailbox/worker.cuh>

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#endif

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace commands {

GMB_HD inline uint64_t mix(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ull;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebull;
  return x ^ x >> 31;
}

/* What is done of a command: it gets the next number, and is written down under it. */
struct book {
  uint64_t next;
  uint64_t room;
  uint64_t *log;
};

/* A command that takes some time, and is not done if it is not wanted any more by then. */
constexpr uint32_t careful = GMB_COMMAND_USER + 7;
constexpr uint32_t codes = 16;

struct clerk {
  static constexpr uint32_t most_spawned = 0;
  static constexpr bool takes_commands = true;
  template <class Hand> GMB_HD gmb::worker::route operator()(uint32_t &, Hand &) const { return gmb::worker::dropped; }
  template <class Desk> GMB_HD void command(const gmb_command &what, gmb_answer &answer, Desk &desk) const {
    if (what.code == careful) {
      const uint64_t until = gmb::ring::clock_ns() + what.argument[1] % 8192;
      while (gmb::ring::clock_ns() < until) {
      }
      if (desk.is_cancelled()) {
        answer.status = GMB_ERROR_CANCELLED;
        return;
      }
    }
    book *const in = desk.template user<book>();
    const uint64_t number = gmb::ring::fetch_add_relaxed(&in->next, static_cast<uint64_t>(1));
    if (number < in->room) gmb::ring::store_relaxed(in->log + number, what.argument[0]);
    answer.flags = what.code;
    answer.value[0] = number;
    answer.value[1] = what.argument[0];
    answer.value[2] = mix(what.argument[0] ^ mix(what.argument[1] ^ mix(what.argument[2])));
  }
};

}  // namespace commands

#if defined(__CUDACC__)
GMB_WORKER_KERNEL(clerk_at_work, uint32_t, commands::clerk)
#else
GMB_WORKER_FUNCTION(clerk_at_work, uint32_t, commands::clerk)
#endif

namespace {

using commands::book;
using commands::mix;

void check(gmb_status status, const char *call) {
  if (status == GMB_OK) return;
  char words[512] = "";
  gmb_last_error_message(words, sizeof words, nullptr);
  throw std::runtime_error(std::string(call) + ": " + gmb_status_name(status) + ": " + words);
}
#define OK(call) check((call), #call)

/* The book, where the worker finds it; read and written while that is away only. */
#if defined(__CUDACC__)
#define CHECK(call)                                                                                        \
  do {                                                                                                     \
    const cudaError_t told = (call);                                                                       \
    if (told != cudaSuccess) throw std::runtime_error(std::string(#call ": ") + cudaGetErrorString(told)); \
  } while (0)
constexpr gmb_backend backend = GMB_BACKEND_CUDA;
class shared_book {
 public:
  explicit shared_book(uint64_t room) : room_(room) {
    CHECK(cudaMalloc(&at_, sizeof(book) + room * sizeof(uint64_t)));
    clear();
  }
  ~shared_book() { cudaFree(at_); }
  void *at() const { return at_; }
  void clear() const {
    const book fresh = {0, room_, reinterpret_cast<uint64_t *>(static_cast<book *>(at_) + 1)};
    CHECK(cudaMemcpy(at_, &fresh, sizeof fresh, cudaMemcpyHostToDevice));
  }
  std::vector<uint64_t> log() const {
    book now;
    CHECK(cudaMemcpy(&now, at_, sizeof now, cudaMemcpyDeviceToHost));
    if (now.next > room_) throw std::runtime_error("more commands were done than submitted");
    std::vector<uint64_t> all(now.next);
    CHECK(cudaMemcpy(all.data(), now.log, all.size() * sizeof all[0], cudaMemcpyDeviceToHost));
    return all;
  }

 private:
  uint64_t room_;
  void *at_ = nullptr;
};
const void *function() {
  cudaFunction_t found = nullptr;
  CHECK(cudaGetFuncBySymbol(&found, reinterpret_cast<const void *>(clerk_at_work)));
  return found;
}
#else
constexpr gmb_backend backend = GMB_BACKEND_HOST;
class shared_book {
 public:
  explicit shared_book(uint64_t room) : lines_(room) { clear(); }
  void *at() { return &at_; }
  void clear() { at_ = {0, lines_.size(), lines_.data()}; }
  std::vector<uint64_t> log() const {
    if (at_.next > lines_.size()) throw std::runtime_error("more commands were done than submitted");
    return {lines_.begin(), lines_.begin() + static_cast<std::ptrdiff_t>(at_.next)};
  }

 private:
  std::vector<uint64_t> lines_;
  book at_{};
};
const void *function() { return reinterpret_cast<const void *>(clerk_at_work); }
#endif

/* Nothing takes so long: if an answer does, it is lost. */
constexpr uint64_t too_long_ns = 20000000000ull;

struct owners {
  gmb_queue none{};
  gmb_doorbell bell{};
  gmb_worker worker{};
  ~owners() {
    if (worker.id != 0) gmb_worker_destroy(worker);
    if (bell.id != 0) gmb_doorbell_destroy(bell);
    if (none.id != 0) gmb_queue_destroy(none);
  }
};

}  // namespace

#endif
