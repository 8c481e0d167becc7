/* A record into a mailbox of the host backend and out again. */
#include <gpumailbox.h>

#include <stdio.h>
#include <string.h>

int main(void) {
  gmb_context_options where = GMB_CONTEXT_OPTIONS_INIT;
  where.backend = GMB_BACKEND_HOST;
  gmb_mailbox_options options = GMB_MAILBOX_OPTIONS_INIT;
  options.capacity = 8;
  options.payload_bytes = 16;
  gmb_context context;
  gmb_mailbox mailbox;
  if (gmb_context_create(&where, &context) != GMB_OK) return 1;
  if (gmb_mailbox_create(context, &options, &mailbox) != GMB_OK) return 2;

  const char sent[16] = "from C";
  const uint32_t length = sizeof sent, type = 7;
  char received[16] = "";
  gmb_record_header header;
  gmb_result result;
  if (gmb_mailbox_push_from_host_blocking(mailbox, 1, sent, sizeof sent, &length, &type, GMB_WAIT_FOREVER, &result) !=
      GMB_OK)
    return 3;
  if (gmb_mailbox_pop_to_host_blocking(mailbox, 0, 1, received, sizeof received, &header, &result) != GMB_OK) return 4;
  if (result.count != 1 || header.msg_type != type || strcmp(sent, received) != 0) return 5;
  if (gmb_mailbox_destroy(mailbox) != GMB_OK || gmb_context_destroy(context) != GMB_OK) return 6;
  printf("%s, version %s\n", received, gmb_version_string());
  return 0;
}
