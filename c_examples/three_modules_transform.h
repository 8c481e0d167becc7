/* What module 2 of three_modules does to a record; one source for the GPU and the CPU.
 *
 * Of the record with index i and type t, byte p becomes
 *   out[p] = in[p] ^ top byte of (key + (p + 1) * step),   key = (i + 1) * spread ^ t * twist   (64 bits)
 * and after the last byte come four of checksum, low byte first: the sum of (p + 1) * out[p] modulo 2^32.
 * The new type is t + the new length. */
#ifndef THREE_MODULES_TRANSFORM_H
#define THREE_MODULES_TRANSFORM_H

#include <gpumailbox.h>

#if defined(__CUDACC__)
#define TRANSFORM_HD __host__ __device__
#else
#define TRANSFORM_HD
#endif

namespace transform {

constexpr uint64_t step = 0x9e3779b97f4a7c15u;
constexpr uint64_t spread = 0xd1342543de82ef95u;
constexpr uint64_t twist = 0xaf251af3b0f025b5u;
constexpr uint32_t checksum_bytes = 4;

/* Records as a pop left them, and where they go for the next push; all device memory. */
struct job {
  const unsigned char *in;
  const gmb_record_header *headers;
  unsigned char *out;
  uint32_t *out_lengths;
  uint32_t *out_types;
  uint64_t in_stride;
  uint64_t out_stride;
  uint32_t count;
};

/* Every `lanes`-th byte of record `i`, from `lane` on; the sum over all lanes is the checksum. */
TRANSFORM_HD inline uint32_t bytes_of_lane(const job &work, uint32_t i, uint32_t lane, uint32_t lanes) {
  const gmb_record_header header = work.headers[i];
  const unsigned char *in = work.in + i * work.in_stride;
  unsigned char *out = work.out + i * work.out_stride;
  const uint64_t key = header.sequence * spread ^ header.msg_type * twist;
  uint32_t sum = 0;
  for (uint32_t p = lane; p < header.length; p += lanes) {
    const auto byte = static_cast<unsigned char>(in[p] ^ ((key + (p + uint64_t{1}) * step) >> 56));
    out[p] = byte;
    sum += (p + 1) * byte;
  }
  return sum;
}

/* What only one lane does: the checksum behind the bytes, the new length and type. */
TRANSFORM_HD inline void finish_record(const job &work, uint32_t i, uint32_t checksum) {
  const gmb_record_header header = work.headers[i];
  const uint32_t length = header.length + checksum_bytes;
  unsigned char *end = work.out + i * work.out_stride + header.length;
  for (uint32_t b = 0; b < checksum_bytes; ++b) end[b] = static_cast<unsigned char>(checksum >> (8 * b));
  work.out_lengths[i] = length;
  work.out_types[i] = header.msg_type + length;
}

inline void run_on_cpu(const job &work) {
  for (uint32_t i = 0; i < work.count; ++i) finish_record(work, i, bytes_of_lane(work, i, 0, 1));
}

/* Enqueues the kernel on a stream; null, or what went wrong. In three_modules_transform.cu. */
const char *run_on_gpu(const job &work, gmb_stream stream);

}  // namespace transform

#endif
