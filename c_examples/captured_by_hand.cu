// A program that captures by itself: pushes and pops go into graphs begun with cudaStreamBeginCapture and with
// cuStreamBeginCapture, between its own kernels, and the graphs are launched in turns with each other and with work that
// is not captured.
#include "check.h"

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>

namespace {

constexpr uint32_t records = 64, turns = 500;

struct row {
  unsigned long long number, twice;
};

// The next numbers, 1, 2, 3 and so on through all launches.
__global__ void count_on(row *rows, unsigned long long *last) {
  const unsigned long long number = *last + threadIdx.x + 1;
  __syncthreads();
  if (threadIdx.x == 0) *last += blockDim.x;
  rows[threadIdx.x] = {number, 2 * number};
}

struct totals {
  unsigned long long sum, torn;
};

// Adds up as many rows as the pop's result in device memory says.
__global__ void add_up(const row *rows, const gmb_result *popped, totals *into) {
  if (threadIdx.x >= popped->count) return;
  atomicAdd(&into->sum, rows[threadIdx.x].number);
  if (rows[threadIdx.x].twice != 2 * rows[threadIdx.x].number) atomicAdd(&into->torn, 1ull);
}

// The driver's own functions, found as a program does that does not link libcuda.
template <class F> F driver(const char *name) {
  void *found = nullptr;
  cudaDriverEntryPointQueryResult how;
  CHECK_CUDA(cudaGetDriverEntryPointByVersion(name, &found, 12000, cudaEnableDefault, &how));
  MUST(how == cudaDriverEntryPointSuccess, "the driver has no %s", name);
  return reinterpret_cast<F>(found);
}

// What a module uses of the device.
struct module_state {
  row *made, *taken;
  unsigned long long *last;
  totals *sums;
  const gmb_result *popped;
  gmb_token token;
};

// The module's step: numbers, pushed, the same number of records popped, added up.
void step(gmb_mailbox box, const module_state &m, cudaStream_t stream) {
  gmb_push push = GMB_PUSH_INIT;
  push.count = records;
  push.records = m.made;
  push.length = sizeof(row);
  gmb_pop pop = GMB_POP_INIT;
  pop.max = records;
  pop.records = m.taken;
  count_on<<<1, records, 0, stream>>>(m.made, m.last);
  CHECK_CUDA(cudaGetLastError());
  CHECK(gmb_mailbox_push(box, &push, stream, gmb_token{0}));
  CHECK(gmb_mailbox_pop(box, &pop, stream, m.token));
  add_up<<<1, records, 0, stream>>>(m.taken, m.popped, m.sums);
  CHECK_CUDA(cudaGetLastError());
}

cudaGraphExec_t by_runtime(gmb_mailbox box, const module_state &m, cudaStream_t stream, cudaStreamCaptureMode mode) {
  cudaGraph_t graph;
  cudaGraphExec_t ready;
  CHECK_CUDA(cudaStreamBeginCapture(stream, mode));
  step(box, m, stream);
  CHECK_CUDA(cudaStreamEndCapture(stream, &graph));
  CHECK_CUDA(cudaGraphInstantiate(&ready, graph, 0));
  CHECK_CUDA(cudaGraphDestroy(graph));
  return ready;
}

cudaGraphExec_t by_driver(gmb_mailbox box, const module_state &m, cudaStream_t stream, CUstreamCaptureMode mode) {
  CUgraph graph;
  CUgraphExec ready;
  CHECK_CUDA(driver<decltype(&cuStreamBeginCapture)>("cuStreamBeginCapture")(stream, mode));
  step(box, m, stream);
  CHECK_CUDA(driver<decltype(&cuStreamEndCapture)>("cuStreamEndCapture")(stream, &graph));
  CHECK_CUDA(driver<decltype(&cuGraphInstantiateWithFlags)>("cuGraphInstantiateWithFlags")(&ready, graph, 0));
  CHECK_CUDA(driver<decltype(&cuGraphDestroy)>("cuGraphDestroy")(graph));
  return ready;
}

template <class T> T *zeroed(size_t count) {
  T *at;
  CHECK_CUDA(cudaMalloc(reinterpret_cast<void **>(&at), count * sizeof(T)));
  CHECK_CUDA(cudaMemset(at, 0, count * sizeof(T)));
  return at;
}

}  // namespace

int main() {
  CHECK_CUDA(cudaSetDevice(0));
  gmb_context_options options = GMB_CONTEXT_OPTIONS_INIT;
  options.backend = GMB_BACKEND_CUDA;
  gmb_context context;
  CHECK(gmb_context_create(&options, &context));
  gmb_mailbox_options shape = GMB_MAILBOX_OPTIONS_INIT;
  shape.payload_bytes = sizeof(row);
  shape.capacity = 4 * records;
  gmb_mailbox box;
  CHECK(gmb_mailbox_create(context, &shape, &box));
  cudaStream_t first, second;
  CHECK_CUDA(cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking));
  CHECK_CUDA(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking));

  // Each step's numbers are counted on by one counter, so all that is pushed is 1, 2, 3 and so on, whoever pushes it.
  unsigned long long *last = zeroed<unsigned long long>(1);
  totals *sums = zeroed<totals>(1);
  module_state modules[9];  // six captured steps, and three that are not
  for (module_state &m : modules) {
    m = {zeroed<row>(records), zeroed<row>(records), last, sums, nullptr, {}};
    CHECK(gmb_token_create(context, &m.token));
    CHECK(gmb_token_get_device_result(m.token, &m.popped));
  }
  CHECK_CUDA(cudaDeviceSynchronize());

  // Every mode of both interfaces: six graphs over one mailbox.
  const cudaStreamCaptureMode modes[] = {cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal,
                                         cudaStreamCaptureModeRelaxed};
  const CUstreamCaptureMode driver_modes[] = {CU_STREAM_CAPTURE_MODE_GLOBAL, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL,
                                              CU_STREAM_CAPTURE_MODE_RELAXED};
  cudaGraphExec_t graphs[6];
  for (int i = 0; i < 3; ++i) {
    graphs[i] = by_runtime(box, modules[i], first, modes[i]);
    graphs[3 + i] = by_driver(box, modules[3 + i], first, driver_modes[i]);
  }

  for (uint32_t turn = 1; turn <= turns; ++turn) {
    for (int i = 0; i < 6; ++i) {
      CHECK_CUDA(cudaGraphLaunch(graphs[i], first));
      if (i % 2 == 0) continue;
      // The same on another stream, not captured: it waits for the launch by itself, and the next launch for it. Only the
      // counter is the program's own, and so is its order.
      cudaEvent_t counted;
      CHECK_CUDA(cudaEventCreateWithFlags(&counted, cudaEventDisableTiming));
      CHECK_CUDA(cudaEventRecord(counted, first));
      CHECK_CUDA(cudaStreamWaitEvent(second, counted, 0));
      step(box, modules[6 + i / 2], second);
      CHECK_CUDA(cudaEventRecord(counted, second));
      CHECK_CUDA(cudaStreamWaitEvent(first, counted, 0));
      CHECK_CUDA(cudaEventDestroy(counted));
    }
    for (int i = 0; i < 9; ++i) {
      gmb_result result;
      const uint64_t after = i < 6 ? turn - 1 : GMB_EPOCH_LAST;
      CHECK(gmb_token_wait(modules[i].token, after, 10000000000ull, &result));
      MUST(result.status == GMB_OK && result.count == records, "turn %u, step %d: status %d, %u records", turn, i,
           result.status, result.count);
      MUST(i >= 6 || result.epoch == turn, "turn %u, graph %d: epoch %u", turn, i, result.epoch);
    }
  }

  // The graphs keep the mailbox and the tokens: these may go first.
  for (module_state &m : modules) CHECK(gmb_token_destroy(m.token));
  CHECK(gmb_mailbox_destroy(box));
  for (cudaGraphExec_t graph : graphs) CHECK_CUDA(cudaGraphLaunch(graph, first));
  CHECK_CUDA(cudaDeviceSynchronize());
  totals found;
  CHECK_CUDA(cudaMemcpy(&found, sums, sizeof found, cudaMemcpyDeviceToHost));
  const unsigned long long all = static_cast<unsigned long long>(records) * (9 * turns + 6);
  MUST(found.torn == 0 && found.sum == all * (all + 1) / 2, "sum %llu of the numbers up to %llu, %llu torn", found.sum,
       all, found.torn);
  std::printf("6 graphs, 3 by the runtime and 3 by the driver: %u launches and %u steps beside them, %llu records\n",
              6 * turns + 6, 3 * turns, all);

  for (cudaGraphExec_t graph : graphs) CHECK_CUDA(cudaGraphExecDestroy(graph));
  for (module_state &m : modules) {
    CHECK_CUDA(cudaFree(m.made));
    CHECK_CUDA(cudaFree(m.taken));
  }
  CHECK_CUDA(cudaFree(last));
  CHECK_CUDA(cudaFree(sums));
  CHECK_CUDA(cudaStreamDestroy(first));
  CHECK_CUDA(cudaStreamDestroy(second));
  CHECK(gmb_context_destroy(context));
  return 0;
}
