/* Mailboxes for kernels of your own, and for CPU threads on the host backend: pushes and pops by a thread, a warp or a
 * block, without a launch and without the CPU.
 *
 *   __global__ void produce(gmb_ring_header *ring, const unsigned char *rows) {   // gmb_mailbox_info.ring
 *     gmb::device::shared_mailbox box(ring);
 *     gmb::device::one_warp warp;
 *     while (!box.try_push(warp, rows, 100, 7)) gmb::device::back_off(0);
 *   }
 *
 * No operation waits for another one's progress: all of them may be called by kernels that do not fit the device at once.
 * A loop that waits for one to succeed may not, unless whoever makes it succeed runs already: launch both sides so that they
 * are resident together, leave room for what the CPU launches, and give loops a limit or a word that stops them.
 *
 * What a group has written before a push, its lanes' own writes and what they have seen, is visible to the group that pops
 * it (acquire and release, at device scope; for a CPU thread on the host backend the same holds). All threads of a group
 * call each function together, with the same arguments.
 *
 * Rows are 16-byte aligned, and read and written in whole units of 16 bytes; strides are multiples of 16. */
#ifndef GPUMAILBOX_DEVICE_CUH
#define GPUMAILBOX_DEVICE_CUH

#include "ordered.cuh"
#include "shared.cuh"

namespace gmb {
namespace device {

/* Slots of a shared mailbox that belong to a group: from index `first` on. */
using ring::claim;

/* Records to push. `lengths` and `types` may be null: then `length` and `msg_type` hold for all. */
struct rows_in {
  const void *records;
  uint64_t stride;
  uint32_t count;
  uint32_t length;
  uint32_t msg_type;
  const uint32_t *lengths;
  const uint32_t *types;
};

/* Where popped records go: the i-th to the i-th row, of which as many bytes are written as its record has, in whole units.
 * `headers` may be null: else the i-th one gets index, length and type. */
struct rows_out {
  void *records;
  uint64_t stride;
  uint32_t max;
  gmb_record_header *headers;
};

/* A mailbox as a kernel holds it: cheap to make, and to copy; reads the ring's header once. */
class any_mailbox {
 public:
  /* GMB_OK, or why every operation gives nothing: GMB_ERROR_BAD_MAGIC, _BAD_VERSION, _WRONG_MODE, _NOT_SUPPORTED (it
   * overwrites), or what stopped the mailbox. */
  GMB_HD int32_t status() const { return status_; }
  GMB_HD uint32_t payload_bytes() const { return ring_.at.payload_bytes; }
  GMB_HD uint64_t capacity() const { return ring_.at.capacity(); }

 protected:
  GMB_HD any_mailbox(gmb_ring_header *ring, int32_t mode) : ring_(ring), status_(ring::check_header(ring)) {
    if (status_ == GMB_OK && ring->mode != mode) status_ = GMB_ERROR_WRONG_MODE;
    if (status_ == GMB_OK) status_ = ring::load_relaxed(&ring->fault);
    if (status_ != GMB_OK) return;
    whole_ = ring->full_policy == GMB_FULL_WAIT;
    if (ring->full_policy != GMB_FULL_REJECT && !whole_) status_ = GMB_ERROR_NOT_SUPPORTED;
  }
  GMB_HD ring::source source_of(const rows_in &rows) const {
    const uint64_t row = rows.stride < payload_bytes() ? rows.stride : payload_bytes();
    const uint32_t most = rows.lengths || rows.length > row ? static_cast<uint32_t>(row) : rows.length;
    return {static_cast<const unsigned char *>(rows.records), rows.stride, rows.lengths, rows.types, rows.count, rows.length,
            rows.msg_type, most, whole_, 0};
  }
  GMB_HD static ring::sink sink_of(const rows_out &rows) {
    return {static_cast<unsigned char *>(rows.records), rows.stride, rows.headers, rows.max};
  }
  GMB_HD uint64_t row_bytes() const { return ring_.at.stride - sizeof(gmb_record_header); }
  GMB_HD uint32_t failed(int32_t *status) const {
    if (status) *status = status_;
    return 0;
  }

  ring::shared_ring ring_;
  int32_t status_;
  bool whole_ = false;
};

/* A mailbox of GMB_MAILBOX_SHARED: any number of groups push and pop at once, beside what the CPU launches. */
class shared_mailbox : public any_mailbox {
 public:
  GMB_HD explicit shared_mailbox(gmb_ring_header *ring) : any_mailbox(ring, GMB_MODE_SHARED) {}

  /* Pushes the first so many records that there is room for (under GMB_FULL_WAIT all or none), or those before the first
   * that is longer than the payload or the stride: how many. They follow each other, and keep the order of the group's
   * pushes. `status`, if given, says GMB_ERROR_BAD_LENGTH. Does not block. May find too little room while another group gives
   * back what it did not need: try again. */
  template <class Group> GMB_HD uint32_t try_push(const Group &group, const rows_in &rows, int32_t *status = nullptr) const {
    if (status_ != GMB_OK) return failed(status);
    int32_t told = GMB_OK;
    const uint32_t count = ring::push_shared(group, ring_, source_of(rows), told).count;
    if (status) *status = told;
    return count;
  }
  /* One record. */
  template <class Group> GMB_HD bool try_push(const Group &group, const void *record, uint32_t length, uint32_t msg_type = 0) const {
    return try_push(group, rows_in{record, row_bytes(), 1, length, msg_type, nullptr, nullptr}) == 1;
  }

  /* Pops up to `rows.max` records of a reader: how many; fewer, too, where some were abandoned. `status`, if given, says
   * GMB_ERROR_CORRUPT when a slot did not hold its record: that one is left out. Does not block. */
  template <class Group>
  GMB_HD uint32_t try_pop(const Group &group, const rows_out &rows, uint32_t reader = 0, int32_t *status = nullptr) const {
    if (status_ != GMB_OK) return failed(status);
    int32_t told = GMB_OK;
    const uint32_t count = ring::pop_shared(group, ring_, reader, sink_of(rows), told);
    if (status) *status = told;
    return count;
  }
  /* One record, of which `header`, seen by all of the group, says index, length and type. */
  template <class Group> GMB_HD bool try_pop(const Group &group, void *record, gmb_record_header *header, uint32_t reader = 0) const {
    return try_pop(group, rows_out{record, row_bytes(), 1, header}, reader) == 1;
  }

  /* In place: takes slots, as many as are free, `count` at most; then `payload` and `label` of each, then `commit` or
   * `abandon`, one of them and soon: records behind them do not reach readers before. A kernel that ends without either
   * stops the mailbox there. Does not block. */
  template <class Group> GMB_HD claim reserve(const Group &group, uint32_t count) const {
    return status_ == GMB_OK ? ring::reserve(group, ring_, count) : claim{0, 0};
  }
  /* Of a slot that was reserved, or taken, the payload: 16-byte aligned. */
  GMB_HD void *payload(uint64_t index) const { return ring_.at.slot(index) + 1; }
  /* Says what was written to a slot; one thread for each. False, and the slot is abandoned, if the length exceeds the
   * payload. */
  GMB_HD bool label(uint64_t index, uint32_t length, uint32_t msg_type = 0) const {
    const bool fits = length <= payload_bytes();
    if (!fits) ring::count_abandoned(ring_, 1);
    ring::write_label(ring_, index, fits ? length : ring::tombstone, msg_type);
    return fits;
  }
  template <class Group> GMB_HD void commit(const Group &group, const claim &mine) const {
    if (mine.count > 0) ring::publish(group, ring_, mine);
  }
  template <class Group> GMB_HD void abandon(const Group &group, const claim &mine) const { ring::abandon(group, ring_, mine); }

  /* In place: takes records of a reader, `max` at most, those that were abandoned among them; then `header` and `payload` of
   * each, then `release`. Until then no push writes to them. Does not block. */
  template <class Group> GMB_HD claim take(const Group &group, uint32_t max, uint32_t reader = 0) const {
    if (status_ != GMB_OK) return {0, 0};
    return ring::take_together(group, &ring_.header->reader[reader & (GMB_MAX_READERS - 1)], max);
  }
  GMB_HD const gmb_record_header &header(uint64_t index) const {
    return *reinterpret_cast<const gmb_record_header *>(ring_.at.slot(index));
  }
  GMB_HD static bool is_abandoned(const gmb_record_header &header) { return header.length == ring::tombstone; }
  template <class Group> GMB_HD void release(const Group &group, const claim &mine) const {
    if (mine.count > 0) ring::release(group, ring_, mine);
  }
};

/* A mailbox in ordered mode, arbitrated by the device, of which no other operation of the same side runs: one group pushes,
 * for each reader one group pops. A second one is found out, and stops the mailbox: GMB_ERROR_ORDER_VIOLATION. What the CPU
 * knows of the sides (gmb_mailbox_wait_readable, for instance) does not count what kernels do. */
class ordered_mailbox : public any_mailbox {
 public:
  GMB_HD explicit ordered_mailbox(gmb_ring_header *ring) : any_mailbox(ring, GMB_MODE_ORDERED) {}

  /* As of a shared one; finds all the room there is. */
  template <class Group> GMB_HD uint32_t try_push(const Group &group, const rows_in &rows, int32_t *status = nullptr) const {
    if (status_ != GMB_OK) return failed(status);
    int32_t told = GMB_OK;
    const uint32_t count = ring::push_ordered(group, ring_.header, ring_.at, source_of(rows), told);
    if (status) *status = told;
    return count;
  }
  template <class Group> GMB_HD bool try_push(const Group &group, const void *record, uint32_t length, uint32_t msg_type = 0) const {
    return try_push(group, rows_in{record, row_bytes(), 1, length, msg_type, nullptr, nullptr}) == 1;
  }

  /* As of a shared one; a slot that does not hold its record ends the pop before it. */
  template <class Group>
  GMB_HD uint32_t try_pop(const Group &group, const rows_out &rows, uint32_t reader = 0, int32_t *status = nullptr) const {
    if (status_ != GMB_OK) return failed(status);
    int32_t told = GMB_OK;
    const uint32_t count = ring::pop_ordered(group, ring_.header, ring_.at, reader, sink_of(rows), told);
    if (status) *status = told;
    return count;
  }
  template <class Group> GMB_HD bool try_pop(const Group &group, void *record, gmb_record_header *header, uint32_t reader = 0) const {
    return try_pop(group, rows_out{record, row_bytes(), 1, header}, reader) == 1;
  }
};

}  // namespace device
}  // namespace gmb

#endif
