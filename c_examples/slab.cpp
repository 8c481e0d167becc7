// Light in a slab that scatters and absorbs it: how much comes back, comes through, and stays.
//
//   photons -> queue -> worker -> queue finished -> mailbox -> three detectors, each a reader
//                       worker -> queue spawn: the next generation, and then the worker's roles are the other way round
//
// Slabs of three thicknesses, and each fraction must agree with the solution of the integral equation (slab_reference.hpp)
// within four standard errors.
#include "slab.h"
#include "running.hpp"
#include "slab_reference.hpp"

#include <array>
#include <charconv>
#include <chrono>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

GMB_WORKER_FUNCTION(follow_on_the_host, slab::photon, slab::follow)

namespace {

constexpr const char *usage =
    "slab [options]\n"
    "  --backend auto|host|cuda  where it runs (auto)\n"
    "  --photons N               that come in, for each slab (500000)\n"
    "  --seed N                  of all random numbers (20250716)\n"
    "  --json FILE               writes what was found there\n";

constexpr std::array<double, 3> thicknesses{0.5, 2, 5};
constexpr double albedo = 0.9;
constexpr size_t depth_bins = 40, cosine_bins = 20;
constexpr uint32_t batch = 16384;
constexpr double most_errors = 4;
constexpr std::array<const char *, slab::fates> fate_names{"reflected", "transmitted", "absorbed"};

struct options {
  gmb_backend backend = has_kernels ? GMB_BACKEND_AUTO : GMB_BACKEND_HOST;
  uint32_t photons = 500'000;
  uint64_t seed = 20250716;
  std::string json;
};

[[noreturn]] void wrong_usage() {
  std::fputs(usage, stderr);
  std::exit(2);
}

uint64_t number(const std::string &text, uint64_t most) {
  uint64_t value = 0;
  const char *end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc{} || stop != end || value < 1 || value > most) wrong_usage();
  return value;
}

options parse(int argc, char **argv) {
  options wanted;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    if (i + 1 == argc) wrong_usage();
    const std::string value = argv[i + 1];
    if (name == "--backend" && value == "host") wanted.backend = GMB_BACKEND_HOST;
    else if (name == "--backend" && value == "cuda") wanted.backend = GMB_BACKEND_CUDA;
    else if (name == "--photons") wanted.photons = static_cast<uint32_t>(number(value, 100'000'000));
    else if (name == "--seed") wanted.seed = number(value, UINT64_MAX);
    else if (name == "--json") wanted.json = value;
    else if (name != "--backend" || value != "auto") wrong_usage();
  }
  return wanted;
}

// A photon's branches have numbers below this.
constexpr uint32_t branches = 2 * slab::whole;
static_assert(branches <= 8, "a bit of a byte for each");

uint32_t weight_of(uint32_t ended) {
  uint32_t sum = 0;
  for (uint32_t branch = 1; branch < branches; ++branch) sum += (ended >> branch & 1) * slab::weight(branch);
  return sum;
}

// What a detector has counted of one slab.
struct reading {
  uint64_t seen = 0;                // photons of any fate
  std::vector<uint8_t> by_photon;   // branches of this fate, a bit each, by the photon that came in
  std::vector<uint64_t> by_place;   // by depth, of those that went out by the cosine
  uint64_t straight = 0;            // weight that was never scattered
};

// One reader of the mailbox: it looks at every record, and counts those of one fate.
class detector {
 public:
  detector(const gmb::context &context, uint32_t reader, slab::fate wanted)
      : reader_(reader),
        wanted_(wanted),
        stream_(check(gmb::stream::create(context))),
        popped_(check(gmb::token::create(context))),
        records_(check(gmb::pinned_buffer<slab::photon>::create(context, batch))) {}

  void start(const gmb::mailbox &box) const { check(box.pop(gmb::pop_into(records_.view(), reader_), stream_, popped_)); }

  void count(float thickness, reading &into) const {
    const gmb_result result = check(popped_.wait());
    check(gmb::status::of(result));
    into.seen += result.count;
    for (uint32_t i = 0; i < result.count; ++i) {
      const slab::photon &got = records_[i];
      must(got.number < into.by_photon.size() && got.branch - 1u < branches - 1 && got.now < slab::flying, "a record that is no photon's end");
      if (got.now != wanted_) continue;
      const uint32_t weight = slab::weight(got.branch), bit = 1u << got.branch;
      must((into.by_photon[got.number] & bit) == 0, "a photon that has ended twice");
      into.by_photon[got.number] = static_cast<uint8_t>(into.by_photon[got.number] | bit);
      if (got.steps == 0 && wanted_ != slab::absorbed) {
        into.straight += weight;
        continue;
      }
      const float place = wanted_ == slab::absorbed ? got.depth / thickness : std::fabs(got.cosine);
      const size_t bins = into.by_place.size();
      into.by_place[std::min(static_cast<size_t>(place * static_cast<float>(bins)), bins - 1)] += weight;
    }
  }

 private:
  uint32_t reader_;
  slab::fate wanted_;
  gmb::stream stream_;
  gmb::token popped_;
  gmb::pinned_buffer<slab::photon> records_;
};

// What was found of one slab.
struct outcome {
  double thickness = 0;
  std::vector<reading> readings;
  std::vector<uint64_t> generations;  // photons that went through the worker
  uint64_t slices = 0, returned = 0;
};

class laboratory {
 public:
  laboratory(const gmb::context &context, const options &wanted)
      : context_(context),
        wanted_(wanted),
        // Nobody takes photons out of the queue of the next generation meanwhile: it must hold them all.
        there_(make_queue(uint64_t{wanted.photons} << slab::planes)),
        back_(make_queue(uint64_t{wanted.photons} << slab::planes)),
        // Full again and again: the worker waits for room, and the detectors for it.
        finished_(make_queue(4 * batch)),
        layer_(check(gmb::device_buffer<slab::layer>::create(context, 1))),
        ended_(check(gmb::device_buffer<slab::photon>::create(context, batch))),
        box_(check(gmb::mailbox::create(
            context, gmb::mailbox_options::of<slab::photon>(batch).with_readers(slab::fates)))),
        stream_(check(gmb::stream::create(context))),
        popped_(check(gmb::token::create(context))),
        pushed_(check(gmb::token::create(context))),
        forth_(make_worker(there_, back_)),
        home_(make_worker(back_, there_)) {
    for (uint32_t fate = 0; fate < slab::fates; ++fate) {
      detectors_.emplace_back(context, fate, static_cast<slab::fate>(fate));
    }
  }

  outcome run(double thickness) const {
    outcome found;
    found.thickness = thickness;
    for (uint32_t fate = 0; fate < slab::fates; ++fate) {
      reading empty;
      empty.by_photon.resize(wanted_.photons);
      empty.by_place.resize(fate == slab::absorbed ? depth_bins : cosine_bins);
      found.readings.push_back(std::move(empty));
    }
    const slab::layer layer{static_cast<float>(thickness), static_cast<float>(albedo), wanted_.seed};
    check(context_.copy(layer_.data(), &layer, sizeof layer, stream_));
    check(stream_.synchronize());

    std::vector<slab::photon> light(wanted_.photons);
    for (uint32_t i = 0; i < wanted_.photons; ++i) light[i] = {0.0f, 1.0f, i, 0, 1, slab::flying};
    must(check(there_.push_from_host_blocking(light)) == light.size(), "the queue has no room for the light");

    for (uint64_t flying = light.size(); flying > 0;) {
      const gmb_worker_result did = one_generation(found.generations.size() % 2 == 0 ? forth_ : home_, found);
      must(did.processed == flying && did.reason == GMB_WORKER_IDLE, "the worker has not followed all photons");
      found.generations.push_back(flying);
      found.slices += did.slices;
      found.returned += did.returned;
      flying = did.spawned;
    }
    return found;
  }

 private:
  gmb::queue<slab::photon> make_queue(uint64_t least) const {
    uint64_t capacity = 1;
    while (capacity < least) capacity *= 2;
    return check(gmb::queue<slab::photon>::create(context_, capacity));
  }

  gmb::persistent_worker make_worker(const gmb::queue<slab::photon> &from, const gmb::queue<slab::photon> &next) const {
    gmb::worker_options how(from);
    // Short slices, so that photons are also sent back on their way.
    how.with_finished(finished_).with_spawn(next).with_idle_threshold(1000).with_slice(std::chrono::milliseconds(2));
    if (running::is_on_gpu(context_)) {
#if defined(GMB_EXAMPLE_CUDA)
      const void *kernel = slab::kernel();
      must(kernel != nullptr, "the kernel is not there");
      how.with_function(kernel, layer_.data());
      // As many blocks as the budget for workers allows; only a worker knows how many these are.
      how.with_grid(check(check(gmb::persistent_worker::create(how)).info()).most_blocks);
#endif
    } else {
      how.with_function(follow_on_the_host, layer_.data()).with_grid(2);
    }
    return check(gmb::persistent_worker::create(how));
  }

  gmb_worker_result one_generation(const gmb::persistent_worker &worker, outcome &found) const {
    check(worker.start());
    gmb_worker_result did{};
    for (bool ended = false;;) {
      if (hand_over(found) > 0) continue;
      if (ended) return did;
      const gmb::expected<gmb_worker_result> told = worker.wait_for(std::chrono::milliseconds(1));
      if (told.code() == GMB_ERROR_TIMEOUT) continue;
      did = check(told);
      ended = true;
    }
  }

  // From the queue into the mailbox, and from there to each detector: how many.
  uint32_t hand_over(outcome &found) const {
    check(finished_.pop(ended_.view(), stream_, popped_));
    const gmb_result popped = check(popped_.wait());
    check(gmb::status::of(popped));
    if (popped.count == 0) return 0;
    check(box_.push(gmb::push_of(ended_.view(0, popped.count)), stream_, pushed_));
    for (const detector &each : detectors_) each.start(box_);
    for (uint32_t fate = 0; fate < slab::fates; ++fate) {
      detectors_[fate].count(static_cast<float>(found.thickness), found.readings[fate]);
    }
    const gmb_result pushed = check(pushed_.wait());
    check(gmb::status::of(pushed));
    must(pushed.count == popped.count, "the mailbox had no room");
    return popped.count;
  }

  const gmb::context &context_;
  const options &wanted_;
  gmb::queue<slab::photon> there_, back_, finished_;
  gmb::device_buffer<slab::layer> layer_;
  gmb::device_buffer<slab::photon> ended_;
  gmb::mailbox box_;
  gmb::stream stream_;
  gmb::token popped_, pushed_;
  gmb::persistent_worker forth_, home_;
  std::vector<detector> detectors_;
};

struct estimate {
  double mean = 0, error = 0;
};

// The halves of a photon are no independent witnesses: the error is that of a mean over photons that came in.
estimate fraction_of(const reading &from) {
  uint64_t sum = 0, squares = 0;
  for (const uint8_t ended : from.by_photon) {
    const uint64_t weight = weight_of(ended);
    sum += weight;
    squares += weight * weight;
  }
  const double n = static_cast<double>(from.by_photon.size()), one = slab::whole;
  const double mean = static_cast<double>(sum) / n / one;
  const double variance = static_cast<double>(squares) / n / one / one - mean * mean;
  return {mean, std::sqrt(variance / (n - 1))};
}

// All light is somewhere, that of each single photon: nothing came twice or not at all.
void check_balance(const outcome &found) {
  for (const reading &each : found.readings) must(each.seen == found.readings[0].seen, "detectors that saw different photons");
  for (size_t i = 0; i < found.readings[0].by_photon.size(); ++i) {
    uint32_t all = 0;
    for (const reading &each : found.readings) all += weight_of(each.by_photon[i]);
    if (all == slab::whole) continue;
    std::fprintf(stderr, "wrong: of photon %zu, %u of %u parts were detected\n", i, all, slab::whole);
    std::exit(1);
  }
}

// Whether all three fractions agree with the reference.
bool report(const outcome &found, const slab_reference::solution &expected) {
  const std::array<double, slab::fates> wanted{expected.reflected, expected.transmitted, expected.absorbed};
  bool good = true;
  for (uint32_t fate = 0; fate < slab::fates; ++fate) {
    const estimate got = fraction_of(found.readings[fate]);
    const double off = (got.mean - wanted[fate]) / got.error;
    std::printf("%13.1f  %-11s  %8.5f  %14.5f  %9.5f  %+6.2f\n", found.thickness, fate_names[fate], got.mean, got.error,
                wanted[fate], off);
    good = good && std::fabs(off) <= most_errors;
  }
  return good;
}

void write_list(FILE *file, const char *name, const std::vector<double> &values, const char *behind) {
  std::fprintf(file, "      \"%s\": [", name);
  for (size_t i = 0; i < values.size(); ++i) std::fprintf(file, "%s%.6f", i == 0 ? "" : ", ", values[i]);
  std::fprintf(file, "]%s\n", behind);
}

std::vector<double> parts_of(const reading &from) {
  std::vector<double> made;
  for (const uint64_t weight : from.by_place) {
    made.push_back(static_cast<double>(weight) / static_cast<double>(from.by_photon.size()) / slab::whole);
  }
  return made;
}

void write_slab(FILE *file, const outcome &found, const slab_reference::solution &expected, const char *behind) {
  std::fprintf(file, "    {\n      \"optical_depth\": %.1f,\n      \"generations\": [", found.thickness);
  for (size_t i = 0; i < found.generations.size(); ++i) {
    std::fprintf(file, "%s%" PRIu64, i == 0 ? "" : ", ", found.generations[i]);
  }
  std::fprintf(file, "],\n      \"fates\": {\n");
  const std::array<double, slab::fates> wanted{expected.reflected, expected.transmitted, expected.absorbed};
  for (uint32_t fate = 0; fate < slab::fates; ++fate) {
    const estimate got = fraction_of(found.readings[fate]);
    std::fprintf(file, "        \"%s\": {\"measured\": %.6f, \"standard_error\": %.6f, \"reference\": %.6f}%s\n",
                 fate_names[fate], got.mean, got.error, wanted[fate], fate + 1 < slab::fates ? "," : "");
  }
  std::fprintf(file, "      },\n");
  write_list(file, "absorbed_by_depth", parts_of(found.readings[slab::absorbed]), ",");
  write_list(file, "absorbed_by_depth_reference", expected.absorbed_by_depth, ",");
  write_list(file, "reflected_by_cosine", parts_of(found.readings[slab::reflected]), ",");
  write_list(file, "reflected_by_cosine_reference", expected.reflected_by_cosine, ",");
  write_list(file, "transmitted_by_cosine", parts_of(found.readings[slab::transmitted]), ",");
  write_list(file, "transmitted_by_cosine_reference", expected.transmitted_by_cosine, "");
  std::fprintf(file, "    }%s\n", behind);
}

}  // namespace

int main(int argc, char **argv) {
  const options wanted = parse(argc, argv);
  const auto context = check(gmb::context::create(wanted.backend));
  const char *backend = running::is_on_gpu(context) ? "cuda" : "host";
  const laboratory lab(context, wanted);

  FILE *file = wanted.json.empty() ? nullptr : std::fopen(wanted.json.c_str(), "w");
  must(wanted.json.empty() || file != nullptr, "the JSON file cannot be written");
  if (file != nullptr) {
    std::fprintf(file, "{\n  \"backend\": \"%s\",\n  \"photons\": %" PRIu32 ",\n", backend, wanted.photons);
    std::fprintf(file, "  \"seed\": %" PRIu64 ",\n  \"albedo\": %g,\n  \"slabs\": [\n", wanted.seed, albedo);
  }
  std::printf("%" PRIu32 " photons, albedo %g, seed %" PRIu64 "\n", wanted.photons, albedo, wanted.seed);
  std::printf("optical depth  fate         measured  standard error  reference  off by, in errors\n");
  const auto began = std::chrono::steady_clock::now();
  uint64_t followed = 0, slices = 0, returned = 0;
  bool good = true;
  for (const double thickness : thicknesses) {
    const outcome found = lab.run(thickness);
    check_balance(found);
    const auto expected = slab_reference::solve(thickness, albedo, depth_bins, cosine_bins);
    good = report(found, expected) && good;
    if (file != nullptr) write_slab(file, found, expected, thickness == thicknesses.back() ? "" : ",");
    for (const uint64_t each : found.generations) followed += each;
    slices += found.slices;
    returned += found.returned;
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  if (file != nullptr) {
    std::fprintf(file, "  ]\n}\n");
    must(std::fclose(file) == 0, "the JSON file cannot be written");
  }
  must(good, "fractions that are not those of the integral equation");
  std::printf("ok: %" PRIu64 " photons followed in %.2f s, %" PRIu64 " slices, %" PRIu64 " sent back on their way; backend=%s\n",
              followed, took.count(), slices, returned, backend);
  return 0;
}
