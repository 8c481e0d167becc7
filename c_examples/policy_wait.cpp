// GMB_FULL_WAIT: a push takes all its records or none. The calling thread waits until there is room for
// certain; no stream and no kernel waits.
#include "check.hpp"

#include <atomic>
#include <cstdio>
#include <thread>

struct alignas(16) order {
  uint64_t number;
};

// What each side works with. The CPU and kernels reach pinned memory at the same address.
struct side {
  gmb::stream stream;
  gmb::token token;
  gmb::pinned_buffer<order> orders;

  explicit side(const gmb::context &context)
      : stream(check(gmb::stream::create(context))),
        token(check(gmb::token::create(context))),
        orders(check(gmb::pinned_buffer<order>::create(context, 8))) {}

  // Orders `first` and the three after it.
  gmb_push four(uint64_t first) {
    for (uint64_t i = 0; i < 4; ++i) orders[i].number = first + i;
    return gmb::push_of(orders.view(0, 4));
  }
};

int main() {
  const auto context = check(gmb::context::create());
  const auto options = gmb::mailbox_options::of<order>(4).with_full_policy(GMB_FULL_WAIT);
  const auto mailbox = check(gmb::mailbox::create(context, options));
  side producer(context), consumer(context);

  // Full: whoever does not want to wait is told at once.
  gmb_push push = producer.four(1);
  check(mailbox.push(push, producer.stream, producer.token));
  must(check(producer.token.wait()).count == 4, "four orders should have gone in");
  push = producer.four(5);
  push.timeout_ns = 0;
  gmb::status refused = mailbox.push(push, producer.stream, producer.token);
  std::printf("full, and no time: %s\n", refused.name());
  must(refused.code() == GMB_ERROR_TIMEOUT, "there should have been no room");

  // More than fits into the empty mailbox would never find room.
  refused = mailbox.push(gmb::push_of(producer.orders.view(0, 5)), producer.stream);
  std::printf("more than the capacity: %s\n", refused.name());
  must(refused.code() == GMB_ERROR_INVALID_ARGUMENT, "five orders can never fit");

  // A pop that is sure to come is as good as room: the push is submitted behind it.
  std::atomic<bool> open{false};
  check(consumer.stream.run([&open] {
    while (!open) std::this_thread::yield();
  }));
  check(mailbox.pop(consumer.orders.view(), consumer.stream, consumer.token));
  check(mailbox.push(push, producer.stream, producer.token));
  must(producer.token.poll().code() == GMB_NOT_READY, "the push should come after the pop");
  std::printf("submitted behind a pop that has not run yet\n");
  open = true;
  must(check(consumer.token.wait()).count == 4 && consumer.orders[0].number == 1, "orders 1 to 4 should have come");
  must(check(producer.token.wait()).count == 4, "orders 5 to 8 should have gone in");

  // And this push waits in its thread until the consumer asks for what is there.
  std::thread waiting([&] {
    check(mailbox.push(producer.four(9), producer.stream, producer.token));
    must(check(producer.token.wait()).count == 4, "orders 9 to 12 should have gone in");
  });
  uint64_t next = 5;
  while (next <= 12) {
    check(mailbox.pop(consumer.orders.view(), consumer.stream, consumer.token));
    const gmb_result popped = check(consumer.token.wait());
    check(gmb::status::of(popped));
    for (uint32_t i = 0; i < popped.count; ++i) {
      must(consumer.orders[i].number == next++, "the orders should come in order");
    }
  }
  waiting.join();
  const gmb_mailbox_info info = check(mailbox.info());
  must(info.published == 12 && info.rejected == 0, "12 orders should have gone in, and none been rejected");
  std::printf("orders 1 to 12 came, each once and in order\n");
}
