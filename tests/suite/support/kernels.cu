// Kernels that tests load by name: `nvcc -ptx -arch=compute_75 -std=c++17 kernels.cu` writes kernels.ptx beside this file.

// A word from three others: any mistake in any of them shows.
extern "C" __global__ void mix(unsigned long long *to, const unsigned long long *a, const unsigned long long *b,
                               unsigned long long salt, unsigned count) {
  for (unsigned n = blockIdx.x * blockDim.x + threadIdx.x; n < count; n += gridDim.x * blockDim.x) {
    unsigned long long x = a[n] * 3 + (b[n] ^ salt) + n;
    x = (x ^ (x >> 29)) * 0xbf58476d1ce4e5b9ull;
    to[n] = x ^ (x >> 32);
  }
}

// Adds to each float, by a block at a time, through dynamic shared memory.
extern "C" __global__ void add(float *data, float what, unsigned count) {
  extern __shared__ float staged[];
  const unsigned n = blockIdx.x * blockDim.x + threadIdx.x;
  if (n < count) staged[threadIdx.x] = data[n] + what;
  __syncthreads();
  if (n < count) data[n] = staged[threadIdx.x];
}

// Writes where it should not.
extern "C" __global__ void spoil(unsigned long long *where) { *where = 1; }

// Takes about so many nanoseconds, by the device's clock.
extern "C" __global__ void linger(unsigned long long ns) {
  unsigned long long begin, now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(begin));
  do asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  while (now - begin < ns);
}
