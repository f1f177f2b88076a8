// Winograd's transforms F(4x4, 3x3) of channels-last feature maps; winograd.py has the matrices and the products.
// Compiled once for all sizes. Channels are multiples of 16: the vectors below, which any compiler for gcc's extensions
// splits into the processor's.
#include <cstdint>

typedef float Vector __attribute__((vector_size(64), aligned(4), may_alias));
constexpr int LANES = 16;

// Multiply B^T by six vectors that are `step` apart, in place.
static inline void transform_input(Vector* d, int step) {
    const Vector d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step], d5 = d[5 * step];
    const Vector a = d4 - 4 * d2, b = d3 - 4 * d1, e = d4 - d2, f = 2 * (d3 - d1);
    d[0] = 4 * d0 - 5 * d2 + d4;
    d[step] = a + b;
    d[2 * step] = a - b;
    d[3 * step] = e + f;
    d[4 * step] = e - f;
    d[5 * step] = 4 * d1 - 5 * d3 + d5;
}

// Multiply A^T by six vectors that are `step` apart, in place; the first four are the result.
static inline void transform_output(Vector* m, int step) {
    const Vector a = m[step] + m[2 * step], b = m[step] - m[2 * step];
    const Vector e = m[3 * step] + m[4 * step], f = m[3 * step] - m[4 * step];
    m[0] += a + e;
    m[step] = b + 2 * f;
    m[2 * step] = a + 4 * e;
    m[3 * step] = b + 8 * f + m[5 * step];
}

// Both functions process the tiles `start` to `end` of all tiles of the batch, in the order (B, rows, cols).
// The transformed tiles and the products are (36, end - start, chs).
extern "C" void input_tiles(const float* x, float* tiles, int64_t start, int64_t end, int64_t height, int64_t width,
                            int64_t chs) {
    const int64_t rows = (height + 3) / 4, cols = (width + 3) / 4;
    #pragma omp parallel for
    for (int64_t tile = start; tile < end; tile++) {
        const float* image = x + tile / (rows * cols) * height * width * chs;
        const int64_t top = tile / cols % rows * 4 - 1, left = tile % cols * 4 - 1;
        for (int64_t c = 0; c < chs; c += LANES) {
            Vector d[36];
            for (int i = 0; i < 6; i++)
                for (int j = 0; j < 6; j++) {
                    const int64_t h = top + i, w = left + j;
                    const bool inside = h >= 0 && h < height && w >= 0 && w < width;
                    d[6 * i + j] = inside ? *(const Vector*)(image + (h * width + w) * chs + c) : Vector{};
                }
            for (int j = 0; j < 6; j++) transform_input(d + j, 6);
            for (int i = 0; i < 6; i++) transform_input(d + 6 * i, 1);
            for (int p = 0; p < 36; p++) *(Vector*)(tiles + (p * (end - start) + tile - start) * chs + c) = d[p];
        }
    }
}

extern "C" void output_tiles(const float* products, const float* bias, float* y, int64_t start, int64_t end,
                             int64_t height, int64_t width, int64_t chs) {
    const int64_t rows = (height + 3) / 4, cols = (width + 3) / 4;
    #pragma omp parallel for
    for (int64_t tile = start; tile < end; tile++) {
        float* image = y + tile / (rows * cols) * height * width * chs;
        const int64_t top = tile / cols % rows * 4, left = tile % cols * 4;
        for (int64_t c = 0; c < chs; c += LANES) {
            Vector m[36];
            for (int p = 0; p < 36; p++) m[p] = *(const Vector*)(products + (p * (end - start) + tile - start) * chs + c);
            for (int j = 0; j < 6; j++) transform_output(m + j, 6);
            const Vector b = bias ? *(const Vector*)(bias + c) : Vector{};
            for (int i = 0; i < 4; i++) {
                transform_output(m + 6 * i, 1);
                for (int j = 0; j < 4; j++)
                    if (top + i < height && left + j < width)
                        *(Vector*)(image + ((top + i) * width + left + j) * chs + c) = m[6 * i + j] + b;
            }
        }
    }
}
