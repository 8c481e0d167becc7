// What three_modules is told and what it sends: its command line, the input's bytes, and their records.
#ifndef THREE_MODULES_INPUT_H
#define THREE_MODULES_INPUT_H

#include <gpumailbox.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(GMB_EXAMPLE_CUDA)
constexpr bool has_cuda = true;
#else
constexpr bool has_cuda = false;
#endif

namespace {

using bytes = std::vector<unsigned char>;

// A wrong command line: exit code 2. Any other exception: 1.
struct usage_error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct options {
  gmb_backend backend = GMB_BACKEND_AUTO;
  uint64_t capacity = 1024;
  uint32_t payload = 240;
  uint32_t batch = 256;
  double seconds = 2;
  uint64_t seed = std::random_device{}();
  std::string input;
};

constexpr const char *usage =
    "three_modules [options]\n"
    "  --backend auto|host|cuda  where it runs (auto)\n"
    "  --capacity N              records in each mailbox, a power of two (1024)\n"
    "  --payload N               most bytes of a record (240)\n"
    "  --batch N                 most records in one push or pop (256)\n"
    "  --seconds S               how long to loop over the input; 0 is one pass (2)\n"
    "  --seed N                  of the records' lengths and types (random)\n"
    "  --input FILE              what to send (the repository's documentation)\n"
    "  --help                    this text\n";

uint64_t number(const std::string &name, const std::string &text, uint64_t least, uint64_t most) {
  uint64_t value = 0;
  const char *end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc{} || stop != end || value < least || value > most) {
    throw usage_error(name + " " + text + ": a number from " + std::to_string(least) + " to " +
                      std::to_string(most) + " is needed");
  }
  return value;
}

options parse(int argc, char **argv) {
  options wanted;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    if (i + 1 == argc) throw usage_error(name + ": unknown option or no value");
    const std::string value = argv[i + 1];
    if (name == "--backend" && (value == "auto" || value == "host" || value == "cuda")) {
      if (value != "auto") wanted.backend = value == "host" ? GMB_BACKEND_HOST : GMB_BACKEND_CUDA;
    } else if (name == "--capacity") {
      wanted.capacity = number(name, value, 1, GMB_MAX_RECORDS);
      if ((wanted.capacity & (wanted.capacity - 1)) != 0) throw usage_error(name + " is no power of two");
    } else if (name == "--payload") {
      wanted.payload = static_cast<uint32_t>(number(name, value, 1, 1 << 24));
    } else if (name == "--batch") {
      wanted.batch = static_cast<uint32_t>(number(name, value, 1, 1 << 24));
    } else if (name == "--seconds") {
      char *end = nullptr;
      wanted.seconds = std::strtod(value.c_str(), &end);
      if (end == value.c_str() || *end != '\0' || !(wanted.seconds >= 0 && wanted.seconds < 1e6)) {
        throw usage_error(name + " " + value + ": seconds from 0 on are needed");
      }
    } else if (name == "--seed") {
      wanted.seed = number(name, value, 0, UINT64_MAX);
    } else if (name == "--input") {
      wanted.input = value;
    } else {
      throw usage_error(name + " " + value + ": no such option or value");
    }
  }
  if (!has_cuda && wanted.backend == GMB_BACKEND_CUDA) {
    throw usage_error("--backend cuda: built without a CUDA compiler, so module 2 has no kernel");
  }
  if (!has_cuda) wanted.backend = GMB_BACKEND_HOST;
  return wanted;
}

bool append_file(const std::filesystem::path &path, bytes &to) {
  std::error_code none;
  std::ifstream file(path, std::ios::binary);
  if (!file || std::filesystem::is_directory(path, none)) return false;
  to.insert(to.end(), std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  return !file.bad();
}

// The repository's README, CHANGELOG and docs; without them the source of this example.
bytes documentation() {
  namespace fs = std::filesystem;
  std::error_code none;
  std::vector<fs::path> roots;
#if defined(GMB_DOCS_DIR)
  roots.emplace_back(GMB_DOCS_DIR);
#endif
  const fs::path self = fs::canonical("/proc/self/exe", none);
  for (fs::path up = self.parent_path(); up.has_relative_path(); up = up.parent_path()) roots.push_back(up);
  bytes found;
  for (const fs::path &root : roots) {
    const fs::path source = root / "c_examples" / "three_modules.cpp";
    if (!fs::exists(source, none)) continue;
    std::vector<fs::path> files{root / "README.md", root / "CHANGELOG.md"};
    for (const auto &entry : fs::directory_iterator(root / "docs", none)) {
      if (entry.path().extension() == ".md") files.push_back(entry.path());
    }
    std::sort(files.begin() + 2, files.end());
    for (const fs::path &file : files) append_file(file, found);
    if (!found.empty() || append_file(source, found)) return found;
  }
  append_file(__FILE__, found);
  return found;
}

// Cuts the input into records. Modules 1 and 3 each have one: the same seed gives the same records.
class cutter {
 public:
  struct record {
    const unsigned char *data;
    uint32_t length;
    uint32_t type;
  };

  cutter(const bytes &input, const options &wanted)
      : input_(input), most_(wanted.payload), random_(wanted.seed) {}

  bool at_end() const { return at_ == input_.size(); }
  record next() {
    if (at_end()) at_ = 0;
    const uint64_t draw = random_();
    const auto length = static_cast<uint32_t>(std::min<uint64_t>(1 + draw % most_, input_.size() - at_));
    const record cut{input_.data() + at_, length, static_cast<uint32_t>(draw >> 32)};
    at_ += length;
    return cut;
  }

 private:
  const bytes &input_;
  uint64_t most_;
  std::mt19937_64 random_;
  size_t at_ = 0;
};

}  // namespace

#endif
