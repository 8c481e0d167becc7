// How the examples in C++ end when something is wrong: with a sentence and status 1.
#ifndef CHECK_HPP
#define CHECK_HPP

#include <gpumailbox.hpp>

#include <cstdio>
#include <cstdlib>
#include <utility>

inline void check(const gmb::status &status) {
  if (status.ok()) return;
  std::fprintf(stderr, "error: %s\n", status.message().c_str());
  std::exit(1);
}
template <class T> T check(gmb::expected<T> made) {
  check(made.status());
  return *std::move(made);
}
inline void must(bool condition, const char *what) {
  if (condition) return;
  std::fprintf(stderr, "wrong: %s\n", what);
  std::exit(1);
}

#endif
