// The same slab without chance, and without a line of slab.h: the integral equation of the collisions.
//
// C(x) dx is how many collisions a photon that comes in has between the depths x and x + dx. With an albedo w, scattering of
// no preferred direction, and the exponential integrals En,
//
//   C(x) = exp(-x) + w/2 * integral over y of E1(|x - y|) C(y)
//
// It is solved for the means of C over narrow cells. That light goes from cell to cell, or out, is integrated exactly, so
// none is lost: what is absorbed, reflected and transmitted adds up to 1 but for rounding.
#ifndef SLAB_REFERENCE_HPP
#define SLAB_REFERENCE_HPP

#include <cmath>
#include <cstddef>
#include <vector>

namespace slab_reference {

// E1: its power series where that converges fast, else its continued fraction, from the inside out.
inline double exponential_integral_1(double x) {
  if (x < 1.5) {
    constexpr double euler = 0.57721566490153286;
    double sum = -euler - std::log(x), term = 1;
    for (int n = 1; n < 40; ++n) {
      term *= -x / n;
      sum -= term / n;
    }
    return sum;
  }
  double inner = x;
  for (int n = 80; n >= 1; --n) inner = x + n / (1 + n / inner);
  return std::exp(-x) / inner;
}
inline double exponential_integral_3(double x) {
  if (x <= 0) return 0.5;
  const double second = std::exp(-x) - x * exponential_integral_1(x);
  return (std::exp(-x) - x * second) / 2;
}

struct solution {
  double reflected = 0, transmitted = 0, absorbed = 0;
  std::vector<double> absorbed_by_depth;                             // in equal parts of the slab
  std::vector<double> reflected_by_cosine, transmitted_by_cosine;    // scattered light only
};

inline solution solve(double thickness, double albedo, size_t depth_bins, size_t cosine_bins) {
  const size_t cells = 20 * depth_bins;
  const double wide = thickness / static_cast<double>(cells);
  std::vector<double> third(cells + 1);
  for (size_t k = 0; k <= cells; ++k) third[k] = exponential_integral_3(static_cast<double>(k) * wide);
  // Of what one cell scatters, the part that collides next in a cell so many away.
  std::vector<double> reaches(cells);
  reaches[0] = 1 - (0.5 - third[1]) / wide;
  for (size_t k = 1; k < cells; ++k) reaches[k] = (third[k - 1] - 2 * third[k] + third[k + 1]) / (2 * wide);

  // Collision by collision: each round has those of light that was scattered once more.
  std::vector<double> all(cells), now(cells), next(cells);
  for (size_t i = 0; i < cells; ++i) {
    now[i] = std::exp(-static_cast<double>(i) * wide) * -std::expm1(-wide);
  }
  for (double left = 1; left > 1e-13;) {
    left = 0;
    for (size_t i = 0; i < cells; ++i) {
      all[i] += now[i];
      left += now[i];
      next[i] = 0;
      for (size_t j = 0; j < cells; ++j) next[i] += albedo * now[j] * reaches[i > j ? i - j : j - i];
    }
    now.swap(next);
  }

  solution found;
  found.absorbed_by_depth.resize(depth_bins);
  found.reflected_by_cosine.resize(cosine_bins);
  found.transmitted_by_cosine.resize(cosine_bins);
  found.transmitted = std::exp(-thickness);
  constexpr int parts = 8;
  for (size_t i = 0; i < cells; ++i) {
    found.absorbed += (1 - albedo) * all[i];
    found.absorbed_by_depth[i / 20] += (1 - albedo) * all[i];
    found.reflected += albedo * all[i] * (third[i] - third[i + 1]) / (2 * wide);
    found.transmitted += albedo * all[i] * (third[cells - i - 1] - third[cells - i]) / (2 * wide);
    // Of a cell's light that leaves with this cosine, what is not held up on the way; by the midpoint rule.
    for (size_t bin = 0; bin < cosine_bins; ++bin) {
      for (int part = 0; part < parts; ++part) {
        const double step = 1 / static_cast<double>(cosine_bins * parts);
        const double cosine = (static_cast<double>(bin * parts) + part + 0.5) * step;
        const double in_cell = -std::expm1(-wide / cosine) * cosine / wide;
        const double out = albedo * all[i] / 2 * step * in_cell;
        found.reflected_by_cosine[bin] += out * std::exp(-static_cast<double>(i) * wide / cosine);
        found.transmitted_by_cosine[bin] += out * std::exp(-static_cast<double>(cells - i - 1) * wide / cosine);
      }
    }
  }
  return found;
}

}  // namespace slab_reference

#endif
