// A relay: a sensor module passes readings to a monitor module through one mailbox, each on a stream of
// its own. relay.c and ../examples/relay.rs do the same and print the same.
#include "check.hpp"

#include <cstdio>

constexpr uint64_t batch = 4;
constexpr uint64_t rounds = 3;

// Records are a multiple of 16 bytes.
struct alignas(16) reading {
  uint64_t number;
  double celsius;
};

struct sensor {
  gmb::stream stream;
  gmb::event sent;
  gmb::pinned_buffer<reading> readings;
  gmb::device_buffer<reading> on_device;
  uint64_t made = 0;

  explicit sensor(const gmb::context &context)
      : stream(check(gmb::stream::create(context))),
        sent(check(gmb::event::create(context))),
        readings(check(gmb::pinned_buffer<reading>::create(context, batch))),
        on_device(check(gmb::device_buffer<reading>::create(context, batch))) {}

  // Enqueues a batch and does not wait for it.
  void send(const gmb::context &context, const gmb::mailbox &mailbox) {
    const auto guard = check(gmb::stream_guard::create(context, stream));
    // The rows may be written again once the last push is done; the first time there was none.
    check(sent.synchronize());
    for (reading &r : readings) {
      r = {made, 20 + 0.25 * static_cast<double>(made)};
      ++made;
    }
    check(context.copy(on_device.data(), readings.data(), readings.bytes(), gmb::current_stream));
    check(mailbox.push(on_device.view(), gmb::current_stream));
    check(sent.record(gmb::current_stream));
  }
};

struct monitor {
  gmb::stream stream;
  gmb::token received;
  gmb::pinned_buffer<reading> readings;
  uint64_t seen = 0;

  explicit monitor(const gmb::context &context)
      : stream(check(gmb::stream::create(context))),
        received(check(gmb::token::create(context))),
        readings(check(gmb::pinned_buffer<reading>::create(context, 2 * batch))) {}

  // Takes what has come; the mailbox orders its pops after its pushes, whatever their streams.
  void receive(const gmb::context &context, const gmb::mailbox &mailbox, uint64_t round) {
    const auto guard = check(gmb::stream_guard::create(context, stream));
    check(mailbox.pop(readings.view(), gmb::current_stream, received));
    const gmb_result popped = check(received.wait());
    must(gmb::status::of(popped).ok(), "the pop should have found nothing wrong");
    must(popped.count == batch, "a batch should have come");
    double sum = 0;
    for (uint32_t i = 0; i < popped.count; ++i) {
      must(readings[i].number == seen++, "the readings should come in order");
      sum += readings[i].celsius;
    }
    std::printf("round %u: %u readings, %u to %u, mean %.3f\n", static_cast<unsigned>(round), popped.count,
                static_cast<unsigned>(seen - popped.count), static_cast<unsigned>(seen - 1), sum / popped.count);
  }
};

int main() {
  const auto context = check(gmb::context::create());
  const auto mailbox = check(gmb::mailbox::create(context, gmb::mailbox_options::of<reading>(8)));
  sensor from(context);
  monitor to(context);
  for (uint64_t round = 0; round < rounds; ++round) {
    from.send(context, mailbox);
    to.receive(context, mailbox, round);
  }
  must(from.made == to.seen, "every reading should have come");
  std::printf("ok: %u readings passed\n", static_cast<unsigned>(to.seen));
}
