// Pixels of pictures: averages over rectangles, crops. The twin of detection/sum_table.py and
// detection/crop_pixels.py. A picture is {width, height, data}, data RGB of three bytes a pixel.

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** A picture of a canvas's ImageData; transparency is laid over white. */
export function pictureOf({ width, height, data }) {
  const rgb = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; from < data.length; from += 4, to += 3) {
    const opaque = data[from + 3] / 255;
    for (let channel = 0; channel < 3; channel++) {
      rgb[to + channel] = Math.round(data[from + channel] * opaque + 255 * (1 - opaque));
    }
  }
  return { width, height, data: rgb };
}

/** Sums over the rectangles that begin in a picture's corner (Crow, SIGGRAPH 1984); at most 8 million pixels. */
export function makeSumTable({ width, height, data }) {
  const stride = (width + 1) * 3;
  const sums = new Int32Array(stride * (height + 1));
  for (let row = 0; row < height; row++) {
    const line = [0, 0, 0];
    for (let column = 0; column < width; column++) {
      for (let channel = 0; channel < 3; channel++) {
        line[channel] += data[(row * width + column) * 3 + channel];
        const at = (row + 1) * stride + (column + 1) * 3 + channel;
        sums[at] = sums[at - stride] + line[channel];
      }
    }
  }
  return { width, height, stride, sums };
}

/** First and end of each of `count` cells between two whole edges. */
export function cellsOf(low, high, count) {
  const side = high - low;
  const first = new Int32Array(count);
  const end = new Int32Array(count);
  for (let number = 0; number < count; number++) {
    first[number] = low + Math.floor((number * side) / count);
    end[number] = low + Math.ceil(((number + 1) * side) / count);
  }
  return [first, end];
}

/** Averages over a rectangle's cells into planes [3, rows, columns] of `out`, from `start` on. */
function average(table, [left, top, right, bottom], columns, rows, out, start) {
  const { sums, stride } = table;
  const [x0, x1] = cellsOf(left, right, columns);
  const [y0, y1] = cellsOf(top, bottom, rows);
  for (let row = 0; row < rows; row++) {
    const upper = y0[row] * stride;
    const lower = y1[row] * stride;
    for (let column = 0; column < columns; column++) {
      const over = Math.fround(1 / ((y1[row] - y0[row]) * (x1[column] - x0[column])));
      const [near, far] = [x0[column] * 3, x1[column] * 3];
      for (let channel = 0; channel < 3; channel++) {
        const sum =
          sums[lower + far + channel] - sums[lower + near + channel] -
          sums[upper + far + channel] + sums[upper + near + channel];
        out[start + (channel * rows + row) * columns + column] = Math.fround(sum) * over;
      }
    }
  }
}

/** The whole picture in another size, planes [3, height, width] 0…255. */
export function resized(table, width, height) {
  const out = new Float32Array(3 * height * width);
  average(table, [0, 0, table.width, table.height], width, height, out, 0);
  return out;
}

/** Rectangles [left, top, right, bottom] (whole, inside, not empty) as squares: [N, 3, size, size]. */
export function viewsOf(table, corners, size) {
  const count = 3 * size * size;
  const out = new Float32Array(corners.length * count);
  corners.forEach((one, number) => average(table, one, size, size, out, number * count));
  return out;
}

/** For each cell of a smaller line: first pixel and weights of the pixels that it covers. */
function coverage(length, count) {
  const scale = length / count;
  return Array.from({ length: count }, (_, number) => {
    const [low, high] = [number * scale, Math.min((number + 1) * scale, length)];
    const first = Math.floor(low + 1e-6);
    const last = Math.min(Math.ceil(high - 1e-6), length);
    const weights = [];
    for (let pixel = first; pixel < last; pixel++) {
      weights.push((Math.min(pixel + 1, high) - Math.max(pixel, low)) / (high - low));
    }
    return { first, weights };
  });
}

/** A smaller picture whose pixels are averages over the area that each covers. */
export function shrunk({ width, height, data }, toWidth, toHeight) {
  const across = coverage(width, toWidth);
  const down = coverage(height, toHeight);
  const lines = new Float32Array(toWidth * height * 3);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < toWidth; column++) {
      const { first, weights } = across[column];
      for (let channel = 0; channel < 3; channel++) {
        let sum = 0;
        for (let k = 0; k < weights.length; k++) {
          sum += weights[k] * data[(row * width + first + k) * 3 + channel];
        }
        lines[(row * toWidth + column) * 3 + channel] = sum;
      }
    }
  }
  const out = new Uint8Array(toWidth * toHeight * 3);
  const step = toWidth * 3;
  for (let row = 0; row < toHeight; row++) {
    const { first, weights } = down[row];
    for (let at = 0; at < step; at++) {
      let sum = 0;
      for (let k = 0; k < weights.length; k++) sum += weights[k] * lines[(first + k) * step + at];
      out[row * step + at] = Math.round(sum);
    }
  }
  return { width: toWidth, height: toHeight, data: out };
}

/** Mirrored at the borders, which are not repeated: -1 is 1. */
function reflected(index, length) {
  if (length === 1) return 0;
  const period = 2 * (length - 1);
  const inside = ((index % period) + period) % period;
  return inside < length ? inside : period - inside;
}

/** A picture smoothed by a Gaussian of `sigma` pixels. */
export function blurred({ width, height, data }, sigma) {
  const reach = Math.round(sigma * 6 + 1) >> 1;
  const kernel = Array.from({ length: 2 * reach + 1 }, (_, k) => Math.exp(-((k - reach) ** 2) / (2 * sigma * sigma)));
  const total = kernel.reduce((a, b) => a + b, 0);
  const weights = kernel.map((one) => one / total);
  const lines = new Float32Array(data.length);
  const out = new Uint8Array(data.length);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      for (let channel = 0; channel < 3; channel++) {
        let sum = 0;
        for (let k = -reach; k <= reach; k++) {
          sum += weights[k + reach] * data[(row * width + reflected(column + k, width)) * 3 + channel];
        }
        lines[(row * width + column) * 3 + channel] = sum;
      }
    }
  }
  const step = width * 3;
  for (let row = 0; row < height; row++) {
    for (let at = 0; at < step; at++) {
      let sum = 0;
      for (let k = -reach; k <= reach; k++) sum += weights[k + reach] * lines[reflected(row + k, height) * step + at];
      out[row * step + at] = Math.round(sum);
    }
  }
  return { width, height, data: out };
}

function region({ width, data }, left, top, right, bottom) {
  const out = new Uint8Array((right - left) * (bottom - top) * 3);
  for (let row = top; row < bottom; row++) {
    out.set(data.subarray((row * width + left) * 3, (row * width + right) * 3), (row - top) * (right - left) * 3);
  }
  return { width: right - left, height: bottom - top, data: out };
}

/** The two pixels around a place and the share of the second. */
function neighbours(place) {
  const first = Math.floor(place);
  return [first, place - first];
}

/**
 * An upright square of a photo without aliasing: shrunk by area to at most twice the resolution
 * wanted, smoothed, sampled bilinearly. Outside of the photo is black.
 *
 * @param square {ratio, x, y}: pixel p of the photo is pixel ratio * p + (x, y) of the square.
 * @param size side of the square.
 * @returns {Uint8Array} [size, size, 3] RGB.
 */
export function cropSquare(photo, { ratio: scale, x, y }, size) {
  const out = new Uint8Array(size * size * 3);
  const shrink = Math.max(1, Math.floor(1 / scale + 1e-9));
  const margin = 3 * shrink;
  const edge = (place, shift, most, round) => clamp(round((place - shift) / scale), 0, most);
  const low = (shift, most) => edge(-1, shift, most, (p) => Math.floor(p) - margin);
  const high = (shift, most) => edge(size, shift, most, (p) => Math.ceil(p) + margin);
  const [left, top] = [low(x, photo.width), low(y, photo.height)];
  const [right, bottom] = [high(x, photo.width), high(y, photo.height)];
  if (right <= left || bottom <= top) return out;
  let part = region(photo, left, top, right, bottom);
  let ratio = [1, 1];
  if (shrink > 1) {
    const small = [Math.max(1, Math.floor((right - left) / shrink)), Math.max(1, Math.floor((bottom - top) / shrink))];
    ratio = [(right - left) / small[0], (bottom - top) / small[1]];
    part = shrunk(part, ...small);
  }
  const leftover = (scale * (ratio[0] + ratio[1])) / 2;
  if (leftover < 0.95) part = blurred(part, 0.45 * Math.sqrt(1 / leftover ** 2 - 1));
  // Pixel p of the part is photo pixel (p + 0.5) * ratio - 0.5 + (left, top).
  const offset = [scale * (0.5 * ratio[0] - 0.5 + left) + x, scale * (0.5 * ratio[1] - 0.5 + top) + y];
  const at = (row, column, channel) =>
    row < 0 || column < 0 || row >= part.height || column >= part.width
      ? 0
      : part.data[(row * part.width + column) * 3 + channel];
  for (let row = 0; row < size; row++) {
    const [upper, fy] = neighbours((row - offset[1]) / (scale * ratio[1]));
    for (let column = 0; column < size; column++) {
      const [near, fx] = neighbours((column - offset[0]) / (scale * ratio[0]));
      for (let channel = 0; channel < 3; channel++) {
        const above = at(upper, near, channel) * (1 - fx) + at(upper, near + 1, channel) * fx;
        const below = at(upper + 1, near, channel) * (1 - fx) + at(upper + 1, near + 1, channel) * fx;
        out[(row * size + column) * 3 + channel] = Math.round(above * (1 - fy) + below * fy);
      }
    }
  }
  return out;
}
