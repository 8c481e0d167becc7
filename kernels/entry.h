/* Unpacks an entry point's arguments; shared by the CUDA and the host entry points. */
#ifndef GMB_KERNELS_ENTRY_H
#define GMB_KERNELS_ENTRY_H

#include <gpumailbox/alone.cuh>
#include <gpumailbox/arbiter.cuh>
#include <gpumailbox/doorbell.cuh>
#include <gpumailbox/shared_bulk.cuh>
#include <gpumailbox/tensor.cuh>
#include <gpumailbox/worker.cuh>

#include "args.h"

/* The host shapes launches by these. */
static_assert(gmb::ring::units_in_flight == GMB_UNITS_IN_FLIGHT, "units");
static_assert(gmb::ring::arrived_blocks == GMB_MOST_BLOCKS, "blocks");
static_assert(sizeof(gmb::ring::meeting) <= GMB_MEETING_BYTES, "meeting");

/* 64-bit variables that the blocks of an entry point with such arguments have. */
template <class Args> constexpr int words_for = gmb::ring::block_words;
template <> constexpr int words_for<gmb_worker_args> = gmb::ring::worker_words;

template <class T> GMB_HD inline T *at(uint64_t address) { return reinterpret_cast<T *>(address); }

GMB_HD inline gmb_ring_header *ring_of(uint64_t address) { return at<gmb_ring_header>(address); }

GMB_HD inline gmb::ring::report report_of(const gmb_report_args &a) {
  return {at<gmb_result>(a.device_result), at<uint64_t>(a.host_slot), at<uint64_t>(a.host_progress),
          a.operation, a.epoch};
}

GMB_HD inline gmb::ring::source source_of(const gmb_push_args &a) {
  return {at<const unsigned char>(a.records),
          a.stride,
          at<const uint32_t>(a.lengths),
          at<const uint32_t>(a.types),
          a.count,
          a.length,
          a.msg_type,
          a.max_length,
          (a.flags & GMB_PUSH_WHOLE) != 0,
          a.readers,
          a.tile,
          (a.flags & GMB_DRAW_TILES) != 0,
          (a.flags & GMB_ORDERED) != 0,
          at<const gmb::ring::held>(a.borrowed)};
}

GMB_HD inline gmb::ring::sink sink_of(const gmb_pop_args &a) {
  return {at<unsigned char>(a.records), a.stride, at<gmb_record_header>(a.headers), a.max, a.tile,
          (a.flags & GMB_DRAW_TILES) != 0, (a.flags & GMB_ORDERED) != 0};
}

GMB_HD inline gmb::ring::geometry geometry_of(uint64_t ring, const gmb_geometry_args &a) {
  return {ring_of(ring), a.header_bytes, a.capacity, a.stride, a.payload_bytes};
}

template <class Block> GMB_HD inline void run_push(const Block &block, const gmb_push_args &a) {
  gmb::ring::push(block, ring_of(a.ring), geometry_of(a.ring, a.geometry), source_of(a), 1u << a.lanes_log2, report_of(a.report));
}

template <class Block> GMB_HD inline void run_pop(const Block &block, const gmb_pop_args &a) {
  gmb::ring::pop(block, ring_of(a.ring), geometry_of(a.ring, a.geometry), a.reader, sink_of(a), 1u << a.lanes_log2,
                 report_of(a.report));
}

template <class Block> GMB_HD inline void run_push_alone(const Block &block, const gmb_push_args &a) {
  gmb::ring::push_alone(block, ring_of(a.ring), geometry_of(a.ring, a.geometry), source_of(a), 1u << a.lanes_log2,
                        report_of(a.report));
}

template <class Block> GMB_HD inline void run_pop_alone(const Block &block, const gmb_pop_args &a) {
  gmb::ring::pop_alone(block, ring_of(a.ring), geometry_of(a.ring, a.geometry), a.reader, sink_of(a),
                       1u << a.lanes_log2, report_of(a.report));
}

template <class Block> GMB_HD inline void run_push_over(const Block &block, const gmb_push_args &a) {
  gmb::ring::push_over(block, ring_of(a.ring), source_of(a), 1u << a.lanes_log2, report_of(a.report));
}

template <class Block> GMB_HD inline void run_pop_over(const Block &block, const gmb_pop_args &a) {
  gmb::ring::pop_over(block, ring_of(a.ring), a.reader, sink_of(a), 1u << a.lanes_log2, report_of(a.report));
}

template <class Block> GMB_HD inline void run_push_latest(const Block &block, const gmb_push_args &a) {
  gmb::ring::push_latest(block, ring_of(a.ring), source_of(a), report_of(a.report));
}

template <class Block> GMB_HD inline void run_pop_latest(const Block &block, const gmb_pop_args &a) {
  gmb::ring::pop_latest(block, ring_of(a.ring), a.reader, sink_of(a), report_of(a.report));
}

template <class Block> GMB_HD inline void run_borrow(const Block &block, const gmb_borrow_args &a) {
  gmb::ring::borrow(block, ring_of(a.ring), geometry_of(a.ring, a.geometry), a.reader, a.max, at<gmb::ring::held>(a.table),
                    a.place, at<gmb_spans>(a.device_spans), report_of(a.report));
}

template <class Block> GMB_HD inline void run_release(const Block &block, const gmb_borrow_args &a) {
  gmb::ring::release(block, ring_of(a.ring), a.reader, at<gmb::ring::held>(a.table), a.place, report_of(a.report));
}

GMB_HD inline gmb::ring::shared_ring shared_ring_of(uint64_t ring, const gmb_geometry_args &a) {
  return {ring_of(ring), geometry_of(ring, a)};
}

template <class Block> GMB_HD inline void run_push_shared(const Block &block, const gmb_push_args &a) {
  gmb::ring::push_bulk(block, shared_ring_of(a.ring, a.geometry), source_of(a), (a.flags & GMB_PUSH_CREDITED) != 0,
                       1u << a.lanes_log2, at<gmb::ring::meeting>(a.meeting), report_of(a.report));
}

template <class Block> GMB_HD inline void run_pop_shared(const Block &block, const gmb_pop_args &a) {
  gmb::ring::pop_bulk(block, shared_ring_of(a.ring, a.geometry), a.reader, sink_of(a), 1u << a.lanes_log2,
                      at<gmb::ring::meeting>(a.meeting), report_of(a.report));
}

template <class Block> GMB_HD inline void run_credit(const Block &block, const gmb_push_args &a) {
  gmb::ring::credit_bulk(block, shared_ring_of(a.ring, a.geometry), a.count, (a.flags & GMB_PUSH_CREDITED) != 0,
                         report_of(a.report));
}

template <class Block> GMB_HD inline void run_borrow_shared(const Block &block, const gmb_borrow_args &a) {
  gmb::ring::borrow_bulk(block, shared_ring_of(a.ring, a.geometry), a.reader, a.max, at<gmb::ring::held>(a.table) + a.place,
                         at<gmb_spans>(a.device_spans), report_of(a.report));
}

template <class Block> GMB_HD inline void run_release_shared(const Block &block, const gmb_borrow_args &a) {
  gmb::ring::release_bulk(block, shared_ring_of(a.ring, a.geometry), at<gmb::ring::held>(a.table) + a.place);
}

template <class Block> GMB_HD inline void run_reader_shared(const Block &block, const gmb_reader_args &a) {
  gmb::ring::change_reader_bulk(block, shared_ring_of(a.ring, a.geometry), a.reader,
                                static_cast<gmb::ring::reader_action>(a.action));
}

template <class Block> GMB_HD inline void run_tensor(const Block &block, const gmb_tensor_args &a) {
  gmb::ring::publish(block, at<gmb_tensor_ring>(a.ring), a.capacity, a.index, a.tensor);
}

template <class T, class Block> GMB_HD inline void run_queue_push_of(const Block &block, const gmb_queue_args &a) {
  gmb::ring::push_queue<T>(block, at<gmb_queue_header>(a.queue), at<const T>(a.items), a.count, a.tile,
                           at<gmb::ring::meeting>(a.meeting), report_of(a.report));
}

template <class Block> GMB_HD inline void run_queue_push(const Block &block, const gmb_queue_args &a) {
  if (a.item_bytes == 4) run_queue_push_of<uint32_t>(block, a);
  else if (a.item_bytes == 8) run_queue_push_of<uint64_t>(block, a);
  else run_queue_push_of<gmb::ring::unit>(block, a);
}

template <class T, class Block> GMB_HD inline void run_queue_pop_of(const Block &block, const gmb_queue_args &a) {
  gmb::ring::pop_queue<T>(block, at<gmb_queue_header>(a.queue), at<T>(a.items), a.count, a.tile,
                          at<gmb::ring::meeting>(a.meeting), report_of(a.report));
}

template <class Block> GMB_HD inline void run_queue_pop(const Block &block, const gmb_queue_args &a) {
  if (a.item_bytes == 4) run_queue_pop_of<uint32_t>(block, a);
  else if (a.item_bytes == 8) run_queue_pop_of<uint64_t>(block, a);
  else run_queue_pop_of<gmb::ring::unit>(block, a);
}

template <class T, class Block> GMB_HD inline void run_worker_of(const Block &block, const gmb_worker_args &a) {
  gmb::ring::work<T>(block, a, gmb::worker::count_up<T>());
}

template <class Block> GMB_HD inline void run_worker(const Block &block, const gmb_worker_args &a) {
  if (a.item_bytes == 4) run_worker_of<uint32_t>(block, a);
  else if (a.item_bytes == 8) run_worker_of<uint64_t>(block, a);
  else run_worker_of<gmb::ring::unit>(block, a);
}

template <class Block> GMB_HD inline void run_arbiter(const Block &block, const gmb_arbiter_args &a) {
  gmb::ring::arbitrate(block, a);
}

template <class Block> GMB_HD inline void run_fifo_push(const Block &block, const gmb_queue_args &a) {
  const gmb::device::fifo fifo(at<gmb_fifo_header>(a.queue));
  const gmb::ring::block_group<Block> group{block};
  const uint32_t pushed = fifo.try_push(group, at<const gmb_fifo_record>(a.items), a.count);
  if (block.thread() == 0) gmb::ring::tell_shared(nullptr, pushed, a.count, fifo.status(), report_of(a.report));
}

template <class Block> GMB_HD inline void run_reader(const Block &block, const gmb_reader_args &a) {
  if (block.block() != 0 || block.thread() != 0) return;
  gmb::ring::change_reader(ring_of(a.ring), a.reader, static_cast<gmb::ring::reader_action>(a.action),
                           {at<uint64_t>(a.writer_progress), at<uint64_t>(a.reader_progress)});
}

#endif
