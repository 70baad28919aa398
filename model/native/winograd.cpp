// 3x3 convolutions with a quarter of the multiplications: Winograd's F(4x4, 3x3) (Lavin and Gray,
// Fast Algorithms for Convolutional Neural Networks, CVPR 2016). winograd.py calls it.
//
// The interpolation points are 0, +-1/sqrt(2), +-sqrt(2) and infinity. With these, the result is
// about as exact as that of a direct convolution; with Lavin and Gray's 0, +-1, +-2, it is not.
//
// A tile is 4x4 pixels of the output and depends on 6x6 pixels of the input. For each of the 36
// frequencies, there is one matrix product of (tiles, channels in) and (channels in, channels out).
// Tensors are channels-last; all vectors run along channels.

#include <omp.h>

#include <algorithm>

#include "vectors.h"

namespace {

constexpr int kFrequencies = 36;
constexpr int kPad = 16;  // floats between frequencies, which must not share cache sets

inline Vector relu(Vector x) { return x < 0 ? Vector{} : x; }  // NaN stays NaN

// Input transform of 6 values, B^T d; s and t are strides.
inline void spread(const Vector* d, int s, Vector* out, int t) {
  const float a = 0.70710678118654752f, b = 1.41421356237309505f;
  const Vector even1 = d[4 * s] - 2.0f * d[2 * s], odd1 = a * (d[3 * s] - 2.0f * d[s]);
  const Vector even2 = d[4 * s] - 0.5f * d[2 * s], odd2 = b * (d[3 * s] - 0.5f * d[s]);
  out[0] = d[0] - 2.5f * d[2 * s] + d[4 * s];
  out[t] = even1 + odd1;
  out[2 * t] = even1 - odd1;
  out[3 * t] = even2 + odd2;
  out[4 * t] = even2 - odd2;
  out[5 * t] = d[s] - 2.5f * d[3 * s] + d[5 * s];
}

// Output transform of 6 products to 4 values, A^T m.
inline void gather(const Vector* m, int s, Vector* out, int t) {
  const float a = 0.70710678118654752f, b = 1.41421356237309505f;
  const Vector even1 = m[s] + m[2 * s], odd1 = a * (m[s] - m[2 * s]);
  const Vector even2 = m[3 * s] + m[4 * s], odd2 = b * (m[3 * s] - m[4 * s]);
  out[0] = m[0] + even1 + even2;
  out[t] = odd1 + odd2;
  out[2 * t] = 0.5f * even1 + 2.0f * even2;
  out[3 * t] = 0.5f * odd1 + 2.0f * odd2 + m[5 * s];
}

int64_t round_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

}  // namespace

extern "C" {

// Arguments of one convolution with padding 1. Tensors are channels-last; bfloat16 if `is_half`,
// else float32. Bias and scratch memory are always float32.
struct Convolution {
  const void* x;       // (batch, height, width, in)
  const void* weight;  // from winograd_pack
  const float* bias;   // (out,) or null
  const void* add;     // shape of y, added before the ReLU, or null
  void* y;             // (batch, height, width, out)
  float* scratch;      // winograd_scratch() floats
  int64_t batch, height, width, in, out;
  int64_t add_batch;  // batch of `add`; 1: shared by all
  int64_t relu_before, relu_after;
  int64_t is_half;         // tensors are bfloat16
  int64_t multiplies_half; // packed weights and transformed input are bfloat16
  int64_t threads;
};

}

namespace {

// How the work is divided. If the weights fit into the cache, each thread computes all steps of its
// own tiles. Otherwise, all threads share a panel of tiles and divide the output channels, so that
// each weight is loaded once per panel.
struct Plan {
  int64_t rows, columns, tiles, blocks;  // tiles of the batch; blocks of kBlock output channels
  bool shares;
  int64_t part;    // tiles of a matrix product
  int64_t panel;   // tiles whose input is transformed at once
  int64_t spread;  // floats of one frequency of the transformed input
  int64_t product; // floats of one frequency of the product
  int64_t owned;   // floats of scratch memory per thread
  int64_t shared;  // floats of scratch memory for all threads

  explicit Plan(const Convolution& c) {
    rows = (c.height + 3) / 4;
    columns = (c.width + 3) / 4;
    tiles = c.batch * rows * columns;
    blocks = (c.out + kBlock - 1) / kBlock;
    const int64_t bytes = kFrequencies * c.in * c.out * (c.multiplies_half ? 2 : 4);
    shares = bytes > (16 << 20) && blocks >= c.threads;
    if (shares) {
      const int64_t panels = (tiles + kPanel - 1) / kPanel;
      panel = round_up((tiles + panels - 1) / panels, kRows);
      part = panel;
    } else {
      int64_t parts = round_up((tiles + kOwn - 1) / kOwn, c.threads);
      part = panel = round_up((tiles + parts - 1) / parts, kRows);
    }
    spread = panel * c.in + kPad;
    product = part * kBlock + kPad;
    const int64_t input = round_up(kFrequencies * spread, kPad);
    owned = round_up(kFrequencies * product, kPad) + (shares ? 0 : input);
    shared = shares ? input : 0;
  }
  static constexpr int64_t kOwn = 24, kPanel = 138;
};

// T: type of the tensors. P: type of the factors of matrix products.
template <typename T, typename P>
class Worker {
 public:
  Worker(const Convolution& c, const Plan& plan) : c_(c), plan_(plan) {}

  // Transforms the input of tiles first to first + count - 1: (frequency, tile, channel in).
  void transform(int64_t first, int64_t count, P* out) const {
    for (int64_t t = 0; t < count; t++) {
      int64_t row, column, image;
      locate(first + t, &row, &column, &image);
      const T* x = static_cast<const T*>(c_.x) + image * c_.height * c_.width * c_.in;
      for (int64_t channel = 0; channel < c_.in; channel += kLanes) {
        Vector d[36], e[36];
        for (int i = 0; i < 6; i++) {
          const int64_t yy = 4 * row + i - 1;
          for (int j = 0; j < 6; j++) {
            const int64_t xx = 4 * column + j - 1;
            const bool inside = yy >= 0 && yy < c_.height && xx >= 0 && xx < c_.width;
            Vector value = inside ? load(x + (yy * c_.width + xx) * c_.in + channel) : Vector{};
            d[6 * i + j] = c_.relu_before ? relu(value) : value;
          }
        }
        for (int j = 0; j < 6; j++) spread(d + j, 6, e + j, 6);
        for (int i = 0; i < 6; i++) spread(e + 6 * i, 1, d + 6 * i, 1);
        P* to = out + t * c_.in + channel;
        for (int i = 0; i < kFrequencies; i++) store(to + i * plan_.spread, d[i]);
      }
    }
  }

  // Computes one block of output channels for tiles first to first + count - 1. `spread` is their
  // transformed input, readable up to the next multiple of kRows tiles.
  void make(int64_t first, int64_t count, int64_t block, const P* spread, float* product) const {
    for (int i = 0; i < kFrequencies; i++) {
      const P* weight =
          static_cast<const P*>(c_.weight) + (block * kFrequencies + i) * c_.in * kBlock;
      for (int64_t t = 0; t < count; t += kRows)
        multiply(spread + i * plan_.spread + t * c_.in, c_.in, weight,
                 product + i * plan_.product + t * kBlock);
    }
    for (int64_t t = 0; t < count; t++) {
      int64_t row, column, image;
      locate(first + t, &row, &column, &image);
      const int64_t made = image * c_.height * c_.width * c_.out;
      const int64_t added = c_.add_batch == 1 ? 0 : made;
      const int64_t high = std::min<int64_t>(4, c_.height - 4 * row);
      const int64_t wide = std::min<int64_t>(4, c_.width - 4 * column);
      for (int v = 0; v < kVectors; v++) {
        const int64_t channel = block * kBlock + v * kLanes;
        if (channel >= c_.out) break;
        Vector m[36], e[24], out[16];
        const float* from = product + t * kBlock + v * kLanes;
        for (int i = 0; i < kFrequencies; i++) m[i] = load(from + i * plan_.product);
        for (int j = 0; j < 6; j++) gather(m + j, 6, e + j, 6);
        for (int i = 0; i < 4; i++) gather(e + 6 * i, 1, out + 4 * i, 1);
        const Vector bias = c_.bias ? load(c_.bias + channel) : Vector{};
        for (int64_t i = 0; i < high; i++) {
          const int64_t line = (4 * row + i) * c_.width + 4 * column;
          for (int64_t j = 0; j < wide; j++) {
            const int64_t at = (line + j) * c_.out + channel;
            Vector value = out[4 * i + j] + bias;
            if (c_.add) value += load(static_cast<const T*>(c_.add) + added + at);
            store(static_cast<T*>(c_.y) + made + at, c_.relu_after ? relu(value) : value);
          }
        }
      }
    }
  }

 private:
  void locate(int64_t tile, int64_t* row, int64_t* column, int64_t* image) const {
    *column = tile % plan_.columns;
    *row = tile / plan_.columns % plan_.rows;
    *image = tile / plan_.columns / plan_.rows;
  }

  const Convolution& c_;
  const Plan& plan_;
};

template <typename T, typename P>
void run(const Convolution& c) {
  const Plan plan(c);
  const Worker<T, P> worker(c, plan);
#pragma omp parallel num_threads(c.threads)
  {
    float* own = c.scratch + plan.shared + omp_get_thread_num() * plan.owned;
    P* input = reinterpret_cast<P*>(
        plan.shares ? c.scratch : own + round_up(kFrequencies * plan.product, kPad));
    if (!plan.shares) {
#pragma omp for schedule(dynamic)
      for (int64_t first = 0; first < plan.tiles; first += plan.part) {
        const int64_t count = std::min(plan.part, plan.tiles - first);
        worker.transform(first, count, input);
        for (int64_t block = 0; block < plan.blocks; block++)
          worker.make(first, count, block, input, own);
      }
    } else {
      for (int64_t start = 0; start < plan.tiles; start += plan.panel) {
        const int64_t size = std::min(plan.panel, plan.tiles - start);
#pragma omp for schedule(static)
        for (int64_t t = 0; t < size; t++) worker.transform(start + t, 1, input + t * c.in);
#pragma omp for schedule(dynamic)
        for (int64_t block = 0; block < plan.blocks; block++)
          for (int64_t t = 0; t < size; t += plan.part)
            worker.make(start + t, std::min(plan.part, size - t), block, input + t * c.in, own);
      }
    }
  }
}

// (out, in, 3, 3) -> (block, frequency, in, kBlock), or (block, frequency, in / 2, kBlock, 2).
template <typename P>
void pack(const float* weight, int64_t out, int64_t in, P* packed, bool pairs) {
  const double r = 1.41421356237309505, s = r / 2;
  const double G[6][3] = {{1, 0, 0},           {-1 / 1.5, -s / 1.5, -.5 / 1.5},
                          {-1 / 1.5, s / 1.5, -.5 / 1.5}, {1 / 6., r / 6, 2 / 6.},
                          {1 / 6., -r / 6, 2 / 6.},       {0, 0, 1}};
  const int64_t blocks = (out + kBlock - 1) / kBlock;
#pragma omp parallel for
  for (int64_t block = 0; block < blocks; block++)
    for (int64_t c = 0; c < in; c++)
      for (int64_t k = 0; k < kBlock; k++) {
        const int64_t channel = block * kBlock + k;
        double half[6][3] = {}, value[36] = {};
        if (channel < out) {
          const float* w = weight + (channel * in + c) * 9;
          for (int i = 0; i < 6; i++)
            for (int j = 0; j < 3; j++)
              for (int l = 0; l < 3; l++) half[i][j] += G[i][l] * w[3 * l + j];
          for (int i = 0; i < 36; i++)
            for (int l = 0; l < 3; l++) value[i] += half[i / 6][l] * G[i % 6][l];
        }
        for (int i = 0; i < kFrequencies; i++) {
          const int64_t at = (block * kFrequencies + i) * in * kBlock;
          packed[pairs ? at + (c / 2 * kBlock + k) * 2 + c % 2 : at + c * kBlock + k] = value[i];
        }
      }
}

}  // namespace

extern "C" {

// Numbers of input and output channels must be multiples of it.
int64_t winograd_lanes() { return kLanes; }

// 1 if the CPU has instructions for products of bfloat16 pairs, else 0.
int64_t winograd_has_half() {
#if defined(__AVX512BF16__)
  return 1;
#else
  return 0;
#endif
}

int64_t winograd_packed_size(int64_t out, int64_t in) {
  return kFrequencies * in * round_up(out, kBlock);
}

// Both are float32, weight is contiguous. The caller converts packed to bfloat16 if needed.
void winograd_pack(const float* weight, int64_t out, int64_t in, float* packed, int64_t in_pairs) {
  pack(weight, out, in, packed, in_pairs);
}

// Size of the scratch memory in floats.
int64_t winograd_scratch(const Convolution* c) {
  const Plan plan(*c);
  return plan.shared + c->threads * plan.owned;
}

void winograd_run(const Convolution* c) {
#if defined(__AVX512BF16__)
  if (c->multiplies_half) return run<Half, Half>(*c);
#endif
  if (c->is_half) return run<Half, float>(*c);
  run<float, float>(*c);
}

}
