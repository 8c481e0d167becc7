// A large file, streamed from disk through the device and back to another file: kernels make a checksum and a histogram of its
// bytes and hide them under a key stream. While one chunk is on the device, others are uploaded and downloaded, and this thread
// reads and writes. --synchronous does one step after the other. What comes out is compared with what the CPU makes of it.
#include "stream_file.h"
#include "stream_file_io.hpp"

#include <array>
#include <chrono>
#include <cinttypes>

// A fatbin that CMake makes of stream_file.cu where there is a CUDA compiler.
#if defined(STREAM_FILE_KERNELS)
constexpr gmb_backend default_backend = GMB_BACKEND_AUTO;
#else
#define STREAM_FILE_KERNELS "(no kernels: this program was built without a CUDA compiler)"
constexpr gmb_backend default_backend = GMB_BACKEND_HOST;
#endif

namespace {

using stream_file::words_of;
constexpr uint64_t seed = 20250716;
constexpr size_t places = 3;

// On the host backend one thread does the work of a block.
struct one_thread {
  const gmb_kernel_block &of;

  uint32_t lane() const { return 0; }
  uint32_t lanes() const { return 1; }
  uint32_t block() const { return of.index[0]; }
  uint32_t blocks() const { return of.grid[0]; }
  void barrier() const {}
  void add(uint64_t *to, uint64_t n) const { __atomic_fetch_add(to, n, __ATOMIC_RELAXED); }
  template <class T> void add_shared(T *to, T n) const { *to += n; }
};
void measure_block(const gmb_kernel_block &block, const uint64_t *words, stream_file::chunk what, stream_file::sums *all) {
  stream_file::scratch mine;
  stream_file::measure(one_thread{block}, words, what, all, &mine);
}
void hide_block(const gmb_kernel_block &block, uint64_t *words, stream_file::chunk what) {
  stream_file::hide(one_thread{block}, words, what);
}

class streamer {
 public:
  streamer(const gmb::context &context, uint64_t chunk_bytes)
      : context_(context),
        chunk_words_(words_of(chunk_bytes)),
        module_(check(gmb::module::load_file(context, STREAM_FILE_KERNELS))),
        measure_(check(module_.kernel("measure", measure_block))),
        hide_(check(module_.kernel("hide", hide_block))),
        stream_(check(gmb::stream::create(context))),
        sums_(check(gmb::device_buffer<stream_file::sums>::create(context, 1))),
        buffer_(check(gmb::device_buffer<uint64_t>::create(context, chunk_words_))),
        triple_(check(gmb::triple_buffer<uint64_t>::create(context, chunk_words_))),
        coordinator_(check(gmb::coordinator::create(context))) {
    for (place &each : places_) {
      each.in = check(gmb::pinned_buffer<uint64_t>::create(context, chunk_words_));
      each.out = check(gmb::pinned_buffer<uint64_t>::create(context, chunk_words_));
    }
  }

  // One step after the other.
  stream_file::sums synchronous(input_file &in, output_file &out) {
    begin();
    place &only = places_[0];
    for (uint64_t first = 0; read(in, first, only); first += chunk_words_) {
      const auto words = only.words();
      check(context_.copy(buffer_.data(), only.in.data(), 8 * words, stream_));
      check(launch(stream_, buffer_.data(), only.what));
      check(context_.copy(only.out.data(), buffer_.data(), 8 * words, stream_));
      check(stream_.synchronize());
      out.write(only.out.data(), only.what.bytes);
    }
    return end();
  }

  // Up to three chunks on their way at once: one is uploaded, one is on the device, one is downloaded, and the file is read
  // and written meanwhile.
  stream_file::sums overlapped(input_file &in, output_file &out) {
    begin();
    uint64_t n = 0;
    for (;; ++n) {
      place &here = places_[n % places];
      if (n >= places) finish(here, out);
      if (!read(in, n * chunk_words_, here)) break;
      const auto up = check(coordinator_.queue(gmb::upload(triple_, here.given())));
      const auto both = [&](gmb::stream_ref stream, gmb::device_span<uint64_t> words) {
        return launch(stream, words.data(), here.what);
      };
      const auto work = check(coordinator_.queue(gmb::compute(triple_, both), up));
      here.done = check(coordinator_.queue(gmb::download(here.room(), triple_), work));
    }
    // What was on its way when the file ended: chunk n, which there is not, was the first to find its place free.
    for (uint64_t left = n < places ? 0 : n - places + 1; left < n; ++left) finish(places_[left % places], out);
    return end();
  }

 private:
  // Host memory of a chunk on its way, and its last operation.
  struct place {
    gmb::pinned_buffer<uint64_t> in, out;
    stream_file::chunk what{};
    gmb_operation done{};

    size_t words() const { return static_cast<size_t>(words_of(what.bytes)); }
    gmb::span<const uint64_t> given() const { return {in.data(), words()}; }
    gmb::span<uint64_t> room() const { return {out.data(), words()}; }
  };

  // Whether there was something to read.
  bool read(input_file &in, uint64_t first_word, place &to) const {
    to.what = {in.read(to.in.data(), 8 * chunk_words_), first_word, seed};
    // The rest of the last word.
    char *bytes = reinterpret_cast<char *>(to.in.data());
    std::fill(bytes + to.what.bytes, bytes + 8 * to.words(), '\0');
    return to.what.bytes > 0;
  }

  void finish(const place &from, output_file &out) const {
    check(coordinator_.wait(from.done));
    out.write(from.out.data(), from.what.bytes);
  }

  gmb::status launch(gmb::stream_ref stream, uint64_t *words, const stream_file::chunk &what) const {
    const gmb::launch_shape shape(264, 256);
    const gmb::status measured = measure_.launch(shape, stream, words, what, sums_.data());
    return measured ? hide_.launch(shape, stream, words, what) : measured;
  }

  void begin() const {
    check(context_.fill(sums_.data(), 0, sums_.bytes(), stream_));
    check(stream_.synchronize());
  }
  stream_file::sums end() const {
    stream_file::sums found;
    check(context_.copy(&found, sums_.data(), sizeof found, stream_));
    check(stream_.synchronize());
    return found;
  }

  const gmb::context &context_;
  uint64_t chunk_words_;
  gmb::module module_;
  gmb::kernel<const uint64_t *, stream_file::chunk, stream_file::sums *> measure_;
  gmb::kernel<uint64_t *, stream_file::chunk> hide_;
  gmb::stream stream_;
  gmb::device_buffer<stream_file::sums> sums_;
  gmb::device_buffer<uint64_t> buffer_;
  std::array<place, places> places_;
  gmb::triple_buffer<uint64_t> triple_;
  gmb::coordinator coordinator_;
};

// What the CPU makes of both files: the sums of the one, and that the other is the one under the key stream.
stream_file::sums reference(const std::string &input, const std::string &output) {
  stream_file::sums made{};
  input_file plain(input, 0), hidden(output, 0);
  std::vector<uint64_t> x(1 << 16), y(x.size());
  for (uint64_t first = 0;; first += x.size()) {
    std::fill(x.begin(), x.end(), 0);
    std::fill(y.begin(), y.end(), 0);
    const uint64_t bytes = plain.read(x.data(), 8 * x.size());
    must(hidden.read(y.data(), 8 * y.size()) == bytes, "the output is not as long as the input");
    if (bytes == 0) return made;
    const char *all = reinterpret_cast<const char *>(x.data());
    for (uint64_t n = 0; n < bytes; ++n) ++made.histogram[static_cast<unsigned char>(all[n])];
    for (uint64_t n = 0; n < words_of(bytes); ++n) {
      made.checksum += stream_file::part_of_checksum(x[n], first + n);
      const uint64_t left = bytes - 8 * n, mask = left < 8 ? (uint64_t{1} << 8 * left) - 1 : ~uint64_t{0};
      must(((x[n] ^ stream_file::key(first + n, seed)) & mask) == (y[n] & mask), "the output's bytes");
    }
  }
}

double run(streamer &by, const options &wanted, bool synchronous) {
  input_file in(wanted.input, wanted.progress ? file_size(wanted.input) : 0);
  output_file out(wanted.output);
  const auto begin = std::chrono::steady_clock::now();
  const stream_file::sums found = synchronous ? by.synchronous(in, out) : by.overlapped(in, out);
  out.close();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  in.end_progress();
  const stream_file::sums wanted_sums = reference(wanted.input, wanted.output);
  must(found.checksum == wanted_sums.checksum, "the checksum");
  must(std::equal(found.histogram, found.histogram + stream_file::bins, wanted_sums.histogram), "the histogram");
  std::printf("%-12s %8.3f s, checksum %016" PRIx64 ", %" PRIu64 " bytes of value 0\n", synchronous ? "synchronous" : "overlapped",
              seconds, found.checksum, found.histogram[0]);
  return seconds;
}

}  // namespace

int main(int argc, char **argv) {
  const options wanted = parse(argc, argv, default_backend);
  const auto context = check(gmb::context::create(wanted.backend));
  streamer by(context, wanted.chunk_kibibytes * 1024);
  if (wanted.makes_input) make_file(wanted.input, wanted.bytes);
  if (wanted.compare) {
    const double one_by_one = run(by, wanted, true), together = run(by, wanted, false);
    std::printf("overlapped is %.2f times as fast\n", one_by_one / together);
  } else {
    run(by, wanted, wanted.synchronous);
  }
  std::printf("ok: %" PRIu64 " bytes went through the device as on the CPU; backend=%s\n", file_size(wanted.input),
              check(context.info()).backend == GMB_BACKEND_CUDA ? "cuda" : "host");
  if (wanted.makes_input) std::remove(wanted.input.c_str());
  if (wanted.removes_output) std::remove(wanted.output.c_str());
}
