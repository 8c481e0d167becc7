/* Checks the history of a mailbox in shared mode: what was pushed and popped, by whom and when.
 *
 * A record's index is its place in the queue, so that an order for all operations is known, and what must hold can be
 * checked one index after the other: no record is lost or comes twice, none is another one; those of a producer, and those
 * that a consumer sees, are in their order; and no operation comes before one in the order that had returned when it was
 * called. That order then is one in which a queue could have done them all (linearizability: Herlihy and Wing, 1990). */
#ifndef GMB_TESTS_HISTORY_CHECK_H
#define GMB_TESTS_HISTORY_CHECK_H

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

namespace history {

/* A record that an operation moved. Times are of one clock for all. */
struct event {
  uint64_t start, end; /* of the operation */
  uint64_t index;      /* of the record */
  uint64_t value;      /* what it holds: every record another one */
};

/* What one producer, or one consumer of a reader, did, in its order. */
struct log {
  bool pushes;
  uint32_t reader;
  const event *events;
  size_t count;
};

/* What is wrong, or nothing. `first` is the index of the first record; an index may be nobody's, if its slot was
 * abandoned: `abandoned` says how many are. The ring is empty at the end. */
inline std::string check(const std::vector<log> &logs, uint64_t first, uint32_t readers, uint64_t abandoned) {
  uint64_t pushed = 0;
  for (const log &one : logs) {
    if (one.pushes) pushed += one.count;
  }
  const uint64_t total = pushed + abandoned;
  const auto at = [&](uint64_t index) { return " at index " + std::to_string(index + first); };
  /* By index: the push, and of one reader at a time the pop. */
  constexpr uint64_t nobody = ~0ull;
  std::vector<event> push(total, event{0, 0, nobody, 0}), pop;
  const auto collect = [&](const log &one, std::vector<event> &into) -> std::string {
    for (size_t i = 0; i < one.count; ++i) {
      const event &e = one.events[i];
      const uint64_t index = e.index - first;
      if (index >= total) return "an index that nobody can have" + at(index);
      if (e.end < e.start) return "an operation ends before it begins" + at(index);
      if (i > 0 && index <= one.events[i - 1].index - first) return "not in its order" + at(index);
      if (into[index].index != nobody) return (one.pushes ? "pushed twice" : "popped twice") + at(index);
      into[index] = event{e.start, e.end, index, e.value};
    }
    return "";
  };
  /* No later one has returned before an earlier one was called. */
  const auto in_time = [&](const std::vector<event> &all) -> std::string {
    uint64_t latest = 0;
    for (const event &e : all) {
      if (e.index == nobody) continue;
      if (e.end < latest) return "it had returned when an earlier one was called" + at(e.index);
      latest = std::max(latest, e.start);
    }
    return "";
  };
  std::string wrong;
  for (const log &one : logs) {
    if (one.pushes && !(wrong = collect(one, push)).empty()) return "push: " + wrong;
  }
  if (!(wrong = in_time(push)).empty()) return "push: " + wrong;
  for (uint32_t reader = 0; reader < readers; ++reader) {
    pop.assign(total, event{0, 0, nobody, 0});
    for (const log &one : logs) {
      if (!one.pushes && one.reader == reader && !(wrong = collect(one, pop)).empty()) return "pop: " + wrong;
    }
    if (!(wrong = in_time(pop)).empty()) return "pop: " + wrong;
    uint64_t returned = nobody; /* the soonest that a pop from here on returned */
    for (uint64_t i = total; i-- > 0;) {
      const event &in = push[i], &out = pop[i];
      if (in.index != nobody && out.index == nobody) return "lost" + at(i);
      if (in.index == nobody && out.index != nobody) return "popped, and not pushed" + at(i);
      if (in.index == nobody) continue;
      if (in.value != out.value) return "another record came out" + at(i);
      returned = std::min(returned, out.end);
      if (returned < in.start) return "a pop of it, or of a later one, had returned when its push was called" + at(i);
    }
  }
  return "";
}

}  // namespace history

#endif
