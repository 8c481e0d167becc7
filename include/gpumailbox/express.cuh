/* Express mailboxes, for latency: one producer and one consumer, each a thread or a warp of a running kernel, and records of
 * at most 240 bytes. Every 16 bytes of a record carry a flag of their own and are written, and read, in one access: so
 * there is no trip for an index that says that the record is there.
 *
 *   __global__ void answer(gmb_ring_header *questions, gmb_ring_header *answers, unsigned char *row) {   // one warp
 *     gmb::device::one_warp warp;
 *     gmb::device::express_consumer in(questions);
 *     gmb::device::express_producer out(answers);
 *     gmb_record_header header;
 *     for (uint32_t n = 0; !in.try_pop(warp, row, header); ++n) gmb::device::back_off(n);
 *     while (!out.try_push(warp, row, header.length)) {}
 *   }
 *
 * A record is all that is handed over: what its producer has stored elsewhere need not be visible to who pops it. */
#ifndef GPUMAILBOX_EXPRESS_CUH
#define GPUMAILBOX_EXPRESS_CUH

#include "turn.cuh"

namespace gmb {
namespace ring {

/* Payload of an access, behind which its flag stands; the first has length and type instead of eight of these bytes. */
constexpr uint32_t express_words = 3, express_label_words = 2;

/* Accesses that a slot for records of so many bytes takes: a record writes all of them. Its length is known with the rest. */
GMB_HD constexpr uint32_t express_units(uint32_t bytes) {
  return (express_label_words + (bytes + 3) / 4 + express_words - 1) / express_words;
}
/* Whether each lane of a group has one at most: then nothing is gone over again. */
template <class Group> constexpr bool express_at_once = Group::width >= express_units(GMB_EXPRESS_BYTES);

struct express_ring {
  gmb_ring_header *header;
  unsigned char *slots = nullptr;
  int32_t status;
  uint32_t mask = 0, stride = 0, payload_bytes = 0, payload_words = 0, units = 0;
  uint64_t next = 0;
  /* Slot of the next record, and the flag of its units: of each lap another one, and never zero. Brought on when a record
   * is through, so that a look is no more than a load. */
  unit *slot = nullptr;
  uint32_t flag = 0;

  GMB_HD explicit express_ring(gmb_ring_header *ring) : header(ring), status(check_header(ring)) {
    if (status == GMB_OK && ring->mode != GMB_MODE_EXPRESS) status = GMB_ERROR_WRONG_MODE;
    if (status != GMB_OK) return;
    mask = static_cast<uint32_t>(ring->capacity) - 1;
    stride = ring->stride;
    payload_bytes = ring->payload_bytes;
    payload_words = (payload_bytes + 3) / 4;
    units = express_units(payload_bytes);
    slots = reinterpret_cast<unsigned char *>(ring) + ring->header_bytes;
  }
  GMB_HD void begin(uint64_t index) {
    next = index;
    slot = reinterpret_cast<unit *>(slots + (index & mask) * stride);
    flag = static_cast<uint32_t>(index >> log2_of(mask + 1)) << 1 | 1;
  }
  GMB_HD void advance() {
    ++next;
    slot = reinterpret_cast<unit *>(reinterpret_cast<unsigned char *>(slot) + stride);
    if ((next & mask) != 0) return;
    slot = reinterpret_cast<unit *>(slots);
    flag += 2;
  }
};

}  // namespace ring

namespace device {

/* The only producer of an express mailbox. Another kernel may go on with it after this one. */
class express_producer {
 public:
  GMB_HD explicit express_producer(gmb_ring_header *ring) : ring_(ring), released_(0) {
    if (ring_.status != GMB_OK) return;
    ring_.begin(ring::load_relaxed(&ring->writer.committed));
    released_ = ring::load_acquire(&ring->reader[0].committed);
  }
  /* GMB_OK, or why no push succeeds: GMB_ERROR_BAD_MAGIC, _BAD_VERSION, _WRONG_MODE. */
  GMB_HD int32_t status() const { return ring_.status; }

  /* Pushes a record, 4-byte aligned and read in whole words. False if there is no room, or, which `status` says, the length
   * exceeds the payload: GMB_ERROR_BAD_LENGTH. Does not block. */
  template <class Group>
  GMB_HD bool try_push(const Group &group, const void *record, uint32_t length, uint32_t msg_type = 0, int32_t *status = nullptr) {
    using namespace ring;
    const bool fits = length <= ring_.payload_bytes;
    if (status) *status = ring_.status != GMB_OK || fits ? ring_.status : static_cast<int32_t>(GMB_ERROR_BAD_LENGTH);
    if (ring_.status != GMB_OK || !fits) return false;
    if (ring_.next - released_ > ring_.mask) {
      released_ = group.from_leader(group.lane() == 0 ? load_acquire(&ring_.header->reader[0].committed) : 0);
      if (ring_.next - released_ > ring_.mask) return false;
    }
    const uint32_t *words = static_cast<const uint32_t *>(record), count = (length + 3) / 4;
    for (uint32_t u = group.lane(); u < ring_.units; u += group.lanes()) {
      uint32_t w[express_words];
      GMB_UNROLL
      for (uint32_t k = 0; k < express_words; ++k) {
        const uint32_t at = u * express_words + k - express_label_words;
        w[k] = at < count ? words[at] : 0;
      }
      if (u == 0) w[0] = length, w[1] = msg_type;
      GMB_CHAOS_POINT(22);
      store_unit_at_once(ring_.slot + u, {w[0] | static_cast<uint64_t>(w[1]) << 32, w[2] | static_cast<uint64_t>(ring_.flag) << 32});
      if (express_at_once<Group>) break;
    }
    ring_.advance();
    if (group.lane() == 0) store_relaxed(&ring_.header->writer.committed, ring_.next);
    return true;
  }

 private:
  ring::express_ring ring_;
  uint64_t released_;
};

/* The only consumer. */
class express_consumer {
 public:
  GMB_HD explicit express_consumer(gmb_ring_header *ring) : ring_(ring) {
    if (ring_.status == GMB_OK) ring_.begin(ring::load_relaxed(&ring->reader[0].committed));
  }
  GMB_HD int32_t status() const { return ring_.status; }

  /* Pops the next record to a row, 4-byte aligned, of which as many whole words are written as the payload has; each lane has
   * all of the header. False if it is not there yet, all of it. Does not block. */
  template <class Group> GMB_HD bool try_pop(const Group &group, void *row, gmb_record_header &header) {
    using namespace ring;
    if (ring_.status != GMB_OK) return false;
    /* A lane of a warp has one; a thread goes over them, and takes none before all are there. */
    unit mine = {0, static_cast<uint64_t>(ring_.flag) << 32};
    if (group.lane() < ring_.units) mine = load_unit_at_once(ring_.slot + group.lane());
    const auto there = [&](const unit &u) { return static_cast<uint32_t>(u.hi >> 32) == ring_.flag; };
    bool all = there(mine);
    for (uint32_t u = group.lane() + 1; !express_at_once<Group> && u < ring_.units; ++u) all = all && there(load_unit_at_once(ring_.slot + u));
    if (!group.all(all)) return false;
    uint32_t *words = static_cast<uint32_t *>(row);
    for (uint32_t u = group.lane(); u < ring_.units; u += group.lanes()) {
      const unit got = express_at_once<Group> || u == group.lane() ? mine : load_unit_at_once(ring_.slot + u);
      const uint32_t w[express_words] = {static_cast<uint32_t>(got.lo), static_cast<uint32_t>(got.lo >> 32), static_cast<uint32_t>(got.hi)};
      GMB_UNROLL
      for (uint32_t k = 0; k < express_words; ++k) {
        const uint32_t at = u * express_words + k - express_label_words;
        if (at < ring_.payload_words) words[at] = w[k];
      }
      if (express_at_once<Group>) break;
    }
    const uint64_t label = group.of_leader(mine.lo);
    ring_.advance();
    header = {ring_.next, static_cast<uint32_t>(label), static_cast<uint32_t>(label >> 32)};
    GMB_CHAOS_POINT(23);
    group.sync();
    /* No fence: whether this is stored hangs on what all lanes have loaded. */
    if (group.lane() == 0) store_fenced(&ring_.header->reader[0].committed, ring_.next);
    return true;
  }

 private:
  ring::express_ring ring_;
};

}  // namespace device
}  // namespace gmb

#endif
