// A record into a mailbox of the host backend and out again.
#include <gpumailbox.hpp>

#include <cstdio>
#include <cstring>

struct record {
  char text[16];
};

int main() {
  auto context = gmb::context::create(GMB_BACKEND_HOST);
  if (!context) return 1;
  auto mailbox = gmb::mailbox::create(*context, 8, sizeof(record));
  if (!mailbox) return 2;
  const record sent[1] = {{"from C++"}};
  record received[1] = {};
  if (!mailbox->push_from_host_blocking(gmb::span<const record>(sent))) return 3;
  auto popped = mailbox->pop_to_host_blocking(gmb::span<record>(received));
  if (!popped || popped->count != 1 || std::strcmp(sent[0].text, received[0].text) != 0) return 4;
  // Modes are options like the others.
  const auto options = [] { return gmb::mailbox_options::of<record>(8); };
  auto shared = gmb::mailbox::create(*context, options().with_shared().with_full_policy(GMB_FULL_WAIT));
  auto express = gmb::mailbox::create(*context, options().with_express());
  if (!shared || !express) return 5;
  if (shared->info()->mode != GMB_MODE_SHARED || express->info()->mode != GMB_MODE_EXPRESS) return 6;
  if (gmb::mailbox::create(*context, options().with_shared().with_express()).code() != GMB_ERROR_INVALID_ARGUMENT) return 7;
  if (express->push_from_host_blocking(gmb::span<const record>(sent)).code() != GMB_ERROR_NOT_SUPPORTED) return 8;
  std::printf("%s, version %s\n", received[0].text, gmb_version_string());
}
