// Search for the memory rows that are most similar to each query, without storing all similarities.
// best_rows.py calls it.
//
// Groups have kBlock rows. First, the largest similarity of each group is computed, then all
// similarities of the best groups: the k best rows are in the k best groups.

#include <algorithm>
#include <limits>

#include "vectors.h"

extern "C" {

// Similarity of a row and a query: scale * dot product + the row's offset.
struct Rows {
  const float* key;     // (rows, channels)
  const float* offset;  // (rows,) or null
  const float* query;   // (queries, channels), padded with rows to a multiple of kRows
  int64_t rows, channels, queries;
  double scale;
  int64_t threads;
};

}

namespace {

constexpr float kNothing = -std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

float largest(Vector v) {
  float result = v[0];
  for (int i = 1; i < kLanes; i++) result = v[i] > result ? v[i] : result;
  return result;
}

bool has_nan(Vector v) {
  const Bits found = (Bits)(v != v);
  uint32_t any = 0;
  for (int i = 0; i < kLanes; i++) any |= found[i];
  return any;
}

}  // namespace

extern "C" {

// Rows of a group.
int64_t rows_group() { return kBlock; }

// Queries of one matrix product.
int64_t rows_step() { return kRows; }

// Largest similarity of each group, (queries, groups).
void rows_maxima(const Rows* r, float* maxima) {
  const int64_t groups = (r->rows + kBlock - 1) / kBlock;
  const float scale = r->scale;
#pragma omp parallel num_threads(r->threads)
  {
    float* block = new float[r->channels * kBlock];
#pragma omp for schedule(static)
    for (int64_t group = 0; group < groups; group++) {
      const int64_t first = group * kBlock;
      const int64_t count = std::min<int64_t>(kBlock, r->rows - first);
      float offset[kBlock], product[kRows * kBlock];
      for (int64_t i = 0; i < kBlock; i++)
        offset[i] = i >= count ? kNothing : r->offset ? r->offset[first + i] : 0.0f;
      for (int64_t i = 0; i < kBlock; i++) {
        const float* row = r->key + (first + i) * r->channels;
        for (int64_t c = 0; c < r->channels; c++) block[c * kBlock + i] = i < count ? row[c] : 0;
      }
      for (int64_t q = 0; q < r->queries; q += kRows) {
        multiply(r->query + q * r->channels, r->channels, block, product);
        for (int64_t i = 0; i < std::min<int64_t>(kRows, r->queries - q); i++) {
          Vector best = scale * load(product + i * kBlock) + load(offset), sum = best;
          for (int v = 1; v < kVectors; v++) {
            const int at = v * kLanes;
            const Vector next = scale * load(product + i * kBlock + at) + load(offset + at);
            best = next > best ? next : best;
            sum += next;
          }
          // Comparisons skip NaN, but sums do not: NaN in the memory reaches the result.
          maxima[(q + i) * groups + group] = has_nan(sum) ? kNaN : largest(best);
        }
      }
    }
    delete[] block;
  }
}

// groups (queries, num) -> similarities (queries, num, kBlock), -inf after the last row.
void rows_similarities(const Rows* r, const int64_t* groups, int64_t num, float* similarities) {
#pragma omp parallel for num_threads(r->threads) schedule(static)
  for (int64_t q = 0; q < r->queries; q++) {
    const float* query = r->query + q * r->channels;
    for (int64_t g = 0; g < num; g++) {
      const int64_t first = groups[q * num + g] * kBlock;
      float* out = similarities + (q * num + g) * kBlock;
      for (int64_t i = 0; i < kBlock; i++) {
        if (first + i >= r->rows) {
          out[i] = kNothing;
          continue;
        }
        const float* row = r->key + (first + i) * r->channels;
        Vector sum = {};
        for (int64_t c = 0; c < r->channels; c += kLanes) sum += load(query + c) * load(row + c);
        float dot = 0;
        for (int v = 0; v < kLanes; v++) dot += sum[v];
        out[i] = float(r->scale) * dot + (r->offset ? r->offset[first + i] : 0.0f);
      }
    }
  }
}

}
