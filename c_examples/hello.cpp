// Two records into a mailbox in device memory and out again.
#include <gpumailbox.hpp>

#include <cstdio>
#include <cstdlib>

static void check(const gmb::status &status) {
  if (status.ok()) return;
  std::fprintf(stderr, "error: %s\n", status.message().c_str());
  std::exit(1);
}
template <class T> static T check(gmb::expected<T> made) {
  check(made.status());
  return *std::move(made);
}

int main() {
  auto context = check(gmb::context::create());
  auto stream = check(gmb::stream::create(context));
  auto token = check(gmb::token::create(context));
  auto mailbox = check(gmb::mailbox::create(context, 1024, 64));  // 1024 records of up to 64 bytes

  check(mailbox.push_from_host_blocking("hello", 1));
  check(mailbox.push_from_host_blocking("mailbox", 2));

  auto records = check(gmb::device_buffer<char>::create(context, 8 * 64));
  auto headers = check(gmb::device_buffer<gmb_record_header>::create(context, 8));
  gmb_pop pop = GMB_POP_INIT;
  pop.max = 8;
  pop.records = records.data();
  pop.headers = headers.data();
  check(mailbox.pop(pop, stream.get(), token));  // any cudaStream_t will do
  gmb_result popped = check(token.wait());       // ready: the records are in device memory
  check(gmb::status::of(popped));

  char text[8][64];
  gmb_record_header header[8];
  check(context.copy(text, records.data(), popped.count * sizeof *text, stream.get()));
  check(context.copy(header, headers.data(), popped.count * sizeof *header, stream.get()));
  check(stream.synchronize());
  std::printf("%u records\n", popped.count);
  for (uint32_t i = 0; i < popped.count; ++i)
    std::printf("  type %u: %.*s\n", header[i].msg_type, static_cast<int>(header[i].length), text[i]);
}
