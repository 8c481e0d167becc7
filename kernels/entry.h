/* Unpacks an entry point's arguments; shared by the CUDA and the host entry points. */
#ifndef GMB_KERNELS_ENTRY_H
#define GMB_KERNELS_ENTRY_H

#include <gpumailbox/ring.cuh>

#include "args.h"

template <class T> GMB_HD inline T *at(uint64_t address) { return reinterpret_cast<T *>(address); }

GMB_HD inline gmb::ring::report report_of(const gmb_report_args &a) {
  return {at<gmb_result>(a.device_result), at<uint64_t>(a.host_slot), at<uint64_t>(a.host_progress),
          a.operation};
}

template <class Block> GMB_HD inline void run_push(const Block &block, const gmb_push_args &a) {
  const gmb::ring::source from = {at<const unsigned char>(a.records),
                                  a.stride,
                                  at<const uint32_t>(a.lengths),
                                  at<const uint32_t>(a.types),
                                  a.count,
                                  a.length,
                                  a.msg_type,
                                  a.max_length};
  gmb::ring::push(block, at<gmb_ring_header>(a.ring), from, 1u << a.lanes_log2, report_of(a.report));
}

template <class Block> GMB_HD inline void run_pop(const Block &block, const gmb_pop_args &a) {
  const gmb::ring::sink into = {at<unsigned char>(a.records), a.stride, at<gmb_record_header>(a.headers), a.max};
  gmb::ring::pop(block, at<gmb_ring_header>(a.ring), a.reader, into, 1u << a.lanes_log2, report_of(a.report));
}

#endif
