// A drawing as an image of the digits data set, and the student's answer to it.

const SIZE = 8; // pixels of an image, each the number of dark ones in a block of BLOCK x BLOCK: 0 to 16
const BLOCK = 4;
const STROKE = 26; // pixels of the drawing

const drawing = document.getElementById("drawing");
const pen = drawing.getContext("2d", { willReadFrequently: true });
const answer = document.getElementById("answer");

ort.env.wasm.numThreads = 1; // more would need headers that a plain file server does not send
const session = await ort.InferenceSession.create("student.onnx").catch((error) => {
  answer.textContent = `student.onnx cannot be loaded: ${error.message}`;
  throw error;
});
clear();

// The smallest rectangle around what is drawn: [left, top, width, height]; null of an empty drawing.
function findBounds() {
  const { data, width, height } = pen.getImageData(0, 0, drawing.width, drawing.height);
  let [left, top, right, bottom] = [width, height, -1, -1];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (data[4 * (y * width + x) + 3] > 127) {
        [left, top, right, bottom] = [Math.min(left, x), Math.min(top, y), Math.max(right, x), Math.max(bottom, y)];
      }
    }
  }
  return right < 0 ? null : [left, top, right - left + 1, bottom - top + 1];
}

// As the data set was made (UCI, "Optical Recognition of Handwritten Digits"): the digit fills a bitmap of 32 x 32,
// whose dark pixels are counted in blocks of 4 x 4.
function toImage(bounds) {
  const side = SIZE * BLOCK;
  const bitmap = new OffscreenCanvas(side, side).getContext("2d");
  const [left, top, width, height] = bounds;
  const scale = side / Math.max(width, height);
  const place = [(side - width * scale) / 2, (side - height * scale) / 2, width * scale, height * scale];
  bitmap.drawImage(drawing, left, top, width, height, ...place);
  const { data } = bitmap.getImageData(0, 0, side, side);
  const image = new Uint8Array(SIZE * SIZE);
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const isDark = data[4 * (y * side + x) + 3] > 127;
      image[Math.floor(y / BLOCK) * SIZE + Math.floor(x / BLOCK)] += isDark ? 1 : 0;
    }
  }
  return image;
}

async function classify() {
  const bounds = findBounds();
  if (!bounds) return;
  const image = toImage(bounds);
  const images = new ort.Tensor("uint8", image, [1, SIZE, SIZE, 1]);
  const outputs = await session.run({ images });
  show(image, outputs.class.data[0], outputs.probabilities.data);
}

function show(image, digit, probabilities) {
  const seen = document.getElementById("seen").getContext("2d");
  image.forEach((count, place) => {
    seen.fillStyle = `rgb(0 0 0 / ${count / (BLOCK * BLOCK)})`;
    seen.clearRect(place % SIZE, Math.floor(place / SIZE), 1, 1);
    seen.fillRect(place % SIZE, Math.floor(place / SIZE), 1, 1);
  });
  answer.textContent = `It is a ${digit}`;
  document.getElementById("probabilities").innerHTML = Array.from(probabilities, (share, name) =>
    `<tr><td>${name}<td>${(100 * share).toFixed(1)} %<td><span class="bar" style="width: ${10 * share}em"></span>`
  ).join("");
}

function clear() {
  pen.clearRect(0, 0, drawing.width, drawing.height);
  Object.assign(pen, { lineWidth: STROKE, lineCap: "round", lineJoin: "round" });
  answer.textContent = "ready";
  document.getElementById("probabilities").innerHTML = "";
  document.getElementById("seen").getContext("2d").clearRect(0, 0, SIZE, SIZE);
}

drawing.addEventListener("pointerdown", (event) => {
  drawing.setPointerCapture(event.pointerId);
  pen.beginPath();
  pen.moveTo(event.offsetX, event.offsetY);
});
drawing.addEventListener("pointermove", (event) => {
  if (!event.buttons) return;
  pen.lineTo(event.offsetX, event.offsetY);
  pen.stroke();
});
drawing.addEventListener("pointerup", classify);
document.getElementById("clear").addEventListener("click", clear);
