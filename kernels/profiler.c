/* Ranges for NVIDIA's profilers, in a domain of the library's own. Without a profiler there is no domain, and
 * nothing is done. */
#include <nvtx3/nvToolsExt.h>
#include <pthread.h>

static nvtxDomainHandle_t domain;

static void make_domain(void) { domain = nvtxDomainCreateA("gpumailbox"); }

/* Begins a range of the calling thread; `name` must stay. True when gmb_profiler_end() must end it. */
int gmb_profiler_begin(const char *name) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, make_domain);
  if (!domain) return 0;
  nvtxEventAttributes_t range = {0};
  range.version = NVTX_VERSION;
  range.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
  range.messageType = NVTX_MESSAGE_TYPE_ASCII;
  range.message.ascii = name;
  nvtxDomainRangePushEx(domain, &range);
  return 1;
}

void gmb_profiler_end(void) { nvtxDomainRangePop(domain); }
