// What three_modules looks for at the end: every record as it must be, and how long each took.
#ifndef THREE_MODULES_EXPECTED_H
#define THREE_MODULES_EXPECTED_H

#include "three_modules_input.h"

#include <array>
#include <cmath>

namespace {

// What must arrive, computed from the input and the transform's description, not with its code:
// the key moves on by addition, and the checksum is summed from the last byte back.
class checker {
 public:
  checker(const bytes &input, const options &wanted) : cut_(input, wanted) {}

  void check_next(const gmb_record_header &header, const unsigned char *got) {
    const cutter::record record = cut_.next();
    ++index_;
    same("sequence", 0, index_, header.sequence);
    same("length", 0, record.length + 4, header.length);
    same("type", 0, static_cast<uint32_t>(record.type + record.length + 4), header.msg_type);
    wanted_.assign(record.data, record.data + record.length);
    uint64_t key = (index_ * 0xd1342543de82ef95u) ^ (record.type * 0xaf251af3b0f025b5u);
    for (unsigned char &byte : wanted_) {
      key += 0x9e3779b97f4a7c15u;
      byte = static_cast<unsigned char>(byte ^ (key >> 56));
    }
    uint32_t suffix = 0, sum = 0;
    for (auto byte = wanted_.rbegin(); byte != wanted_.rend(); ++byte) sum += suffix += *byte;
    for (int i = 0; i < 4; ++i, sum /= 256) wanted_.push_back(static_cast<unsigned char>(sum % 256));
    if (std::equal(wanted_.begin(), wanted_.end(), got)) return;
    for (size_t p = 0; p < wanted_.size(); ++p) same("byte", p, wanted_[p], got[p]);
  }

 private:
  void same(const char *what, size_t offset, uint64_t wanted, uint64_t got) const {
    if (wanted == got) return;
    throw std::runtime_error("mismatch: record " + std::to_string(index_ - 1) + ", " + what + " at offset " +
                             std::to_string(offset) + ": expected " + std::to_string(wanted) + ", got " +
                             std::to_string(got));
  }

  cutter cut_;
  bytes wanted_;
  uint64_t index_ = 0;
};

// Counts of nanoseconds in steps of 6 %, so that no sample needs to be kept.
class histogram {
 public:
  void add(uint64_t ns) {
    const int exponent = ns < 16 ? 0 : 63 - __builtin_clzll(ns) - 4;
    ++counts_[static_cast<size_t>(exponent) * 16 + (ns >> exponent)];
    ++total_;
  }
  double quantile_us(double part) const {
    const auto rank = static_cast<uint64_t>(std::ceil(part * static_cast<double>(total_)));
    uint64_t seen = 0;
    for (size_t i = 0; i < counts_.size(); ++i) {
      seen += counts_[i];
      if (seen < rank || seen == 0) continue;
      const size_t exponent = i < 32 ? 0 : i / 16 - 1;
      return std::ldexp(static_cast<double>(i - exponent * 16) + 0.5, static_cast<int>(exponent)) / 1000;
    }
    return 0;
  }

 private:
  std::array<uint64_t, 64 * 16> counts_{};
  uint64_t total_ = 0;
};

}  // namespace

#endif
