// What all measuring programs share: options, repetitions, and rows with the JSON they are printed as. A new row is an `add`
// in the program's `measure`, with what it stands `beside`, and its goal a line in goals.json.
#ifndef GMB_BENCHES_REPORT_H
#define GMB_BENCHES_REPORT_H

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace bench {

using samples = std::vector<double>;

// A row that could not be measured. The other rows go on; the program's exit status is 1.
struct failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline double now_us() {
  using namespace std::chrono;
  return duration<double, std::micro>(steady_clock::now().time_since_epoch()).count();
}

// Polls until `seen` says yes. Nothing here waits longer than two seconds.
template <class F> void poll(const char *what, F &&seen) {
  // The clock is asked now and then only, and not before the first poll: it would be in what is measured.
  double end = 0;
  for (unsigned polls = 1; !seen(); ++polls) {
    if (polls % 1024 != 0) continue;
    if (end == 0) end = now_us() + 2e6;
    else if (now_us() > end) throw failure(std::string(what) + ": nothing came within 2 s");
  }
}

struct options {
  std::vector<std::string> only;
  // 4 Ki, 64 Ki, 256 Ki and 2 Mi records of 240 bytes.
  std::vector<size_t> copies = {983040, 15728640, 62914560, 503316480};
  size_t pairs = 1;
  bool quick = false;
  // Nothing is held until all is submitted: for a profiler, which ends each kernel before the next.
  bool open = false;
};

[[noreturn]] inline void usage(const char *program, const std::string &problem) {
  std::fprintf(stderr, "error: %s\nusage: %s [--memcpy BYTES[,BYTES...]] [--pairs N] [--only ID[,ID...]] [--quick] [--open]\n",
               problem.c_str(), program);
  std::exit(2);
}

inline std::vector<std::string> split(const std::string &list) {
  std::vector<std::string> parts;
  for (size_t from = 0; from <= list.size();) {
    const size_t comma = std::min(list.find(',', from), list.size());
    if (comma > from) parts.push_back(list.substr(from, comma - from));
    from = comma + 1;
  }
  return parts;
}

inline size_t positive(const char *program, const std::string &text) {
  const bool digits = !text.empty() && text.size() < 16 && text.find_first_not_of("0123456789") == std::string::npos;
  const size_t value = digits ? std::stoull(text) : 0;
  if (value == 0) usage(program, "'" + text + "' is no positive number");
  return value;
}

inline options parse(int argc, char **argv) {
  options chosen;
  for (int i = 1; i < argc; ++i) {
    const std::string option = argv[i];
    if (option == "--quick" || option == "--open") {
      (option == "--open" ? chosen.open : chosen.quick) = true;
      continue;
    }
    if (option != "--memcpy" && option != "--pairs" && option != "--only") usage(argv[0], "no option " + option);
    if (++i == argc) usage(argv[0], option + " needs a value");
    if (option == "--only") chosen.only = split(argv[i]);
    if (option == "--pairs") chosen.pairs = positive(argv[0], argv[i]);
    if (option == "--memcpy") {
      chosen.copies.clear();
      for (const auto &text : split(argv[i])) chosen.copies.push_back(positive(argv[0], text));
    }
  }
  return chosen;
}

// How much bulk traffic moves in one operation, and what its rows are called.
struct size {
  const char *name;
  size_t bytes;
};
constexpr size sizes[] = {{"1MB", 983040}, {"16MB", 15728640}, {"63MB", 62914560}, {"503MB", 503316480}};
constexpr size_t whole_records(size of, size_t payload) { return of.bytes / payload * payload; }

// What a row is: its id, the unit of its samples, the bytes that each of them moved, and what it stands beside.
struct row {
  std::string id;
  const char *unit;
  size_t bytes;
  std::string limit;
  const char *limit_name = nullptr;
  row(std::string name, const char *of = "µs", size_t moved = 0) : id(std::move(name)), unit(of), bytes(moved) {}
  row(const char *name) : row(std::string(name)) {}
  // Another row, of the same program or of the one that measures the machine's limits, and what that is in words.
  row beside(std::string other, const char *in_words) const {
    row it = *this;
    it.limit = std::move(other);
    it.limit_name = in_words;
    return it;
  }
};
inline row copy_of(size_t bytes) { return {"memcpy_" + std::to_string(bytes), "µs", bytes}; }

class report {
public:
  explicit report(options chosen) : chosen_(std::move(chosen)), used_(chosen_.only.size()) {}

  const options &chosen() const { return chosen_; }
  int runs(int full) const { return chosen_.quick ? std::max(full / 10, 5) : full; }

  // The samples of so many runs, after some that do not count; `once` is told which run it is, from -warm on.
  template <class F> samples repeat(int warm, int full, F &&once) const {
    samples all;
    for (int run = -warm, end = runs(full); run < end; ++run) {
      const double each = once(run);
      if (run >= 0) all.push_back(each);
    }
    return all;
  }
  // The same for runs that give a sample for each of several rows.
  template <size_t count, class F> std::array<samples, count> repeat_together(int warm, int full, F &&once) const {
    std::array<samples, count> all;
    for (int run = -warm, end = runs(full); run < end; ++run) {
      const std::array<double, count> each = once(run);
      for (size_t i = 0; run >= 0 && i < count; ++i) all[i].push_back(each[i]);
    }
    return all;
  }

  // A row is made here: what it is, and a function that gives its samples. In microseconds unless it says so.
  template <class F> void add(const row &what, F &&measure) {
    together<1>({{what}}, [&] { return std::array<samples, 1>{measure()}; });
  }
  // Rows of one measurement, which gives the samples of each.
  template <size_t count, class F> void together(const std::array<row, count> &rows, F &&measure) {
    std::array<bool, count> asked{};
    for (size_t i = 0; i < count; ++i) asked[i] = wanted(rows[i].id);
    if (std::find(asked.begin(), asked.end(), true) == asked.end()) return;
    std::string failed;
    std::array<samples, count> all;
    try {
      all = measure();
    } catch (const std::exception &problem) {
      failed = problem.what();
    }
    for (size_t i = 0; i < count; ++i) {
      if (!asked[i]) continue;
      try {
        if (!failed.empty()) throw failure(failed);
        rows_.push_back(text_of(rows[i], std::move(all[i])));
      } catch (const failure &problem) {
        complain(rows[i].id, problem.what());
      }
    }
  }

  // Prints the object; the program's exit status.
  int print() {
    for (size_t i = 0; i < used_.size(); ++i)
      if (!used_[i]) complain("--only " + chosen_.only[i], "there is no such row");
    std::printf("{\"rows\":[");
    for (size_t i = 0; i < rows_.size(); ++i) std::printf("%s\n  %s", i ? "," : "", rows_[i].c_str());
    std::printf("\n]}\n");
    if (std::fflush(stdout) != 0) complain("stdout", "cannot be written");
    return failed_ ? 1 : 0;
  }

private:
  options chosen_;
  std::vector<bool> used_;
  std::vector<std::string> rows_;
  bool failed_ = false;

  void complain(const std::string &id, const char *why) {
    std::fprintf(stderr, "error: %s: %s\n", id.c_str(), why);
    failed_ = true;
  }

  // A row is asked for by its id or by the words the id begins with: memcpy, pcie_both.
  bool wanted(const std::string &id) {
    bool found = chosen_.only.empty();
    for (size_t i = 0; i < used_.size(); ++i)
      if (id == chosen_.only[i] || id.rfind(chosen_.only[i] + "_", 0) == 0) found = used_[i] = true;
    return found;
  }

  static std::string number(const char *name, double value) {
    char text[64];
    std::snprintf(text, sizeof text, ",\"%s\":%.9g", name, value);
    return text;
  }

  static std::string text_of(const row &what, samples all) {
    if (all.empty()) throw failure("no sample");
    for (double each : all)
      if (!std::isfinite(each) || each < 0) throw failure("a sample is negative or no number");
    std::sort(all.begin(), all.end());
    const size_t n = all.size();
    const double median = (all[(n - 1) / 2] + all[n / 2]) / 2;
    if (median <= 0) throw failure("the median is zero");
    std::string text = "{\"id\":\"" + what.id + "\",\"unit\":\"" + what.unit + "\"" + number("value", median) +
                       ",\"runs\":" + std::to_string(n);
    // Of times the least and the 99th percentile, too.
    if (std::string(what.unit) == "µs") text += number("min", all.front()) + number("p99", all[(n * 99 + 99) / 100 - 1]);
    if (what.limit_name) text += ",\"limit_id\":\"" + what.limit + "\",\"limit_name\":\"" + what.limit_name + "\"";
    if (what.bytes) {
      text += ",\"bytes\":" + std::to_string(what.bytes);
      text += number("gbps", 2e-3 * static_cast<double>(what.bytes) / median);
    }
    return text + "}";
  }
};

// A program's main function: reads the options, measures, prints.
template <class F> int run(int argc, char **argv, F &&measure) {
  report out(parse(argc, argv));
  try {
    measure(out);
  } catch (const std::exception &problem) {
    std::fprintf(stderr, "error: %s\n", problem.what());
    return 1;
  }
  return out.print();
}

}  // namespace bench

#endif
