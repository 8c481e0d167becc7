/* Two records into a mailbox in device memory and out again. */
#include <gpumailbox.h>

#include <stdio.h>
#include <stdlib.h>

#define PAYLOAD 64

#define CHECK(call)                                            \
  do {                                                         \
    if ((call) != GMB_OK) {                                    \
      char message[1024] = "";                                 \
      gmb_last_error_message(message, sizeof message, NULL);   \
      fprintf(stderr, "%s failed: %s\n", #call, message);      \
      exit(1);                                                 \
    }                                                          \
  } while (0)

int main(void) {
  gmb_context context;
  CHECK(gmb_context_create(NULL, &context));

  gmb_mailbox_options options = GMB_MAILBOX_OPTIONS_INIT;
  options.capacity = 1024;
  options.payload_bytes = PAYLOAD;
  gmb_mailbox mailbox;
  CHECK(gmb_mailbox_create(context, &options, &mailbox));

  /* The slow and easy way in: from host memory, done when the call returns. */
  const char texts[2][PAYLOAD] = {"hello", "mailbox"};
  const uint32_t lengths[2] = {5, 7};
  const uint32_t types[2] = {1, 2};
  gmb_result pushed;
  CHECK(gmb_mailbox_push_from_host_blocking(mailbox, 2, texts, PAYLOAD, lengths, types, GMB_WAIT_FOREVER, &pushed));

  /* The fast way out: records and headers into device memory, in stream order. */
  gmb_stream stream;
  gmb_token token;
  void *records, *headers;
  CHECK(gmb_stream_create(context, GMB_PRIORITY_NORMAL, &stream));
  CHECK(gmb_token_create(context, &token));
  CHECK(gmb_memory_allocate(context, 8 * PAYLOAD, &records));
  CHECK(gmb_memory_allocate(context, 8 * sizeof(gmb_record_header), &headers));
  gmb_pop pop = GMB_POP_INIT;
  pop.max = 8;
  pop.records = records;
  pop.headers = headers;
  CHECK(gmb_mailbox_pop(mailbox, &pop, stream, token));
  gmb_result popped;
  CHECK(gmb_token_wait(token, GMB_EPOCH_LAST, GMB_WAIT_FOREVER, &popped));

  char text[8][PAYLOAD];
  gmb_record_header header[8];
  CHECK(gmb_memory_copy(context, text, records, sizeof text, stream));
  CHECK(gmb_memory_copy(context, header, headers, sizeof header, stream));
  CHECK(gmb_stream_synchronize(context, stream));
  printf("pushed %u, popped %u records\n", pushed.count, popped.count);
  for (uint32_t i = 0; i < popped.count; ++i) {
    printf("  type %u: %.*s\n", header[i].msg_type, (int)header[i].length, text[i]);
  }

  CHECK(gmb_memory_free(context, headers));
  CHECK(gmb_memory_free(context, records));
  CHECK(gmb_token_destroy(token));
  CHECK(gmb_stream_destroy(context, stream));
  CHECK(gmb_mailbox_destroy(mailbox));
  CHECK(gmb_context_destroy(context));
  return popped.count == 2 && popped.status == GMB_OK ? 0 : 1;
}
