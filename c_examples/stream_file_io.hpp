// The files and the options of stream_file.
#ifndef STREAM_FILE_IO_HPP
#define STREAM_FILE_IO_HPP

#include "check.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include <sys/stat.h>
#include <unistd.h>

inline void must_be_file(bool condition, const std::string &path, const char *what) {
  if (condition) return;
  std::fprintf(stderr, "error: %s: %s: %s\n", path.c_str(), what, std::strerror(errno));
  std::exit(1);
}

inline uint64_t file_size(const std::string &path) {
  struct stat found;
  must_be_file(stat(path.c_str(), &found) == 0, path, "cannot be looked at");
  return static_cast<uint64_t>(found.st_size);
}

// A file that is read from its beginning to its end; of a known size, with a bar that shows how far it is.
class input_file {
 public:
  input_file(const std::string &path, uint64_t size_for_progress)
      : path_(path), file_(std::fopen(path.c_str(), "rb")), size_(size_for_progress) {
    must_be_file(file_ != nullptr, path_, "cannot be read");
    std::setvbuf(file_, nullptr, _IONBF, 0);
  }
  input_file(const input_file &) = delete;
  input_file &operator=(const input_file &) = delete;
  ~input_file() { std::fclose(file_); }

  // As much as there is, `most` bytes at most; 0 at the end.
  uint64_t read(void *to, uint64_t most) {
    const size_t bytes = std::fread(to, 1, static_cast<size_t>(most), file_);
    must_be_file(std::ferror(file_) == 0, path_, "cannot be read");
    done_ += bytes;
    if (size_ > 0) show();
    return bytes;
  }

  void end_progress() const {
    if (size_ > 0) std::fputc('\n', stderr);
  }

 private:
  // A sign for every two hundredths.
  void show() {
    const int part = static_cast<int>(std::min<uint64_t>(100, done_ * 100 / size_));
    if (part == std::exchange(shown_, part)) return;
    std::fprintf(stderr, "\r[%.*s%*s] %3d %%", part / 2, "##################################################", 50 - part / 2, "",
                 part);
    std::fflush(stderr);
  }

  std::string path_;
  std::FILE *file_;
  uint64_t size_, done_ = 0;
  int shown_ = -1;
};

class output_file {
 public:
  explicit output_file(const std::string &path) : path_(path), file_(std::fopen(path.c_str(), "wb")) {
    must_be_file(file_ != nullptr, path_, "cannot be written");
    std::setvbuf(file_, nullptr, _IONBF, 0);
  }
  output_file(const output_file &) = delete;
  output_file &operator=(const output_file &) = delete;
  ~output_file() { close(); }

  void write(const void *from, uint64_t bytes) {
    must_be_file(std::fwrite(from, 1, static_cast<size_t>(bytes), file_) == bytes, path_, "cannot be written");
  }
  void close() {
    if (file_ != nullptr) must_be_file(std::fclose(std::exchange(file_, nullptr)) == 0, path_, "cannot be written");
  }

 private:
  std::string path_;
  std::FILE *file_;
};

// Bytes in which some values are more frequent than others, an odd number of them.
inline void make_file(const std::string &path, uint64_t bytes) {
  output_file file(path);
  std::vector<unsigned char> some(1 << 20);
  uint64_t word = 20250716;
  for (uint64_t left = bytes; left > 0;) {
    for (unsigned char &byte : some) {
      word = word * 6364136223846793005u + 1442695040888963407u;
      byte = static_cast<unsigned char>((word >> 60) * (word >> 56 & 15));
    }
    const uint64_t now = std::min<uint64_t>(left, some.size());
    file.write(some.data(), now);
    left -= now;
  }
}

struct options {
  gmb_backend backend = GMB_BACKEND_AUTO;
  std::string input, output;
  uint64_t bytes = (uint64_t{32} << 20) - 3, chunk_kibibytes = 2048;
  bool synchronous = false, compare = false, progress = false, makes_input = false, removes_output = false;
};

[[noreturn]] inline void wrong_usage() {
  std::fputs("stream_file [options]\n"
             "  --backend auto|host|cuda  where it runs (auto)\n"
             "  --input FILE              streams this one, and not one of its own making\n"
             "  --output FILE             writes the hidden bytes there, and leaves them\n"
             "  --megabytes N             of the file that it makes, in MiB less 3 bytes (32)\n"
             "  --kibibytes N             of a chunk (2048)\n"
             "  --synchronous             one step after the other\n"
             "  --compare                 both ways, and their times\n"
             "  --progress                a bar on stderr, also where that is no terminal\n",
             stderr);
  std::exit(2);
}

inline options parse(int argc, char **argv, gmb_backend backend) {
  options wanted;
  wanted.backend = backend;
  wanted.progress = isatty(STDERR_FILENO) == 1;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--synchronous") wanted.synchronous = true;
    else if (name == "--compare") wanted.compare = true;
    else if (name == "--progress") wanted.progress = true;
    else if (i + 1 == argc) wrong_usage();
    else {
      const std::string value = argv[++i];
      char *end = nullptr;
      const uint64_t number = std::strtoull(value.c_str(), &end, 10);
      const bool is_number = !value.empty() && *end == '\0' && number >= 1 && number <= uint64_t{1} << 20;
      if (name == "--backend" && value == "host") wanted.backend = GMB_BACKEND_HOST;
      else if (name == "--backend" && value == "cuda") wanted.backend = GMB_BACKEND_CUDA;
      else if (name == "--input") wanted.input = value;
      else if (name == "--output") wanted.output = value;
      else if (name == "--megabytes" && is_number) wanted.bytes = (number << 20) - 3;
      else if (name == "--kibibytes" && is_number) wanted.chunk_kibibytes = number;
      else if (name != "--backend" || value != "auto") wrong_usage();
    }
  }
  // Other runs may be at it in the same folder.
  const std::string own = "stream_file." + std::to_string(getpid());
  wanted.makes_input = wanted.input.empty();
  wanted.removes_output = wanted.output.empty();
  if (wanted.makes_input) wanted.input = own + ".in";
  if (wanted.removes_output) wanted.output = own + ".out";
  return wanted;
}

#endif
