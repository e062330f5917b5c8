// Slices of a case on a canvas. Volumes are gzipped NIfTI with the order column, row, slice: 352 bytes of header, then uint8.
const HEADER_BYTES = 352, TRUTH = [255, 255, 255], WRONG = [216, 27, 96];
const COLOURS = [[230, 159, 0], [86, 180, 233], [240, 228, 66], [204, 121, 167], [0, 158, 115], [213, 94, 0], [123, 104, 238], [0, 250, 154]];

async function unzip(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

async function readView(view) {
  const files = {};
  for (const name of ["image", "truth", "prediction"]) files[name] = await unzip(view[name]);
  const [width, height, depth] = new Int16Array(files.image.slice(42, 48));
  const volumes = Object.fromEntries(Object.entries(files).map(([name, file]) => [name, new Uint8Array(file, HEADER_BYTES)]));
  return { ...view, files, volumes, width, height, depth };
}

function hasEdge(labels, place, column, row, { width, height }) {
  const value = labels[place];
  return value && (column === 0 || row === 0 || column === width - 1 || row === height - 1 ||
    labels[place - 1] !== value || labels[place + 1] !== value || labels[place - width] !== value || labels[place + width] !== value);
}

function paintSlice(view, slice, layers) {
  const { width, height, volumes } = view, start = slice * width * height, size = width * height;
  const [image, truth, prediction] = ["image", "truth", "prediction"].map((name) => volumes[name].subarray(start, start + size));
  const pixels = new ImageData(width, height), order = Object.keys(view.names);
  const tint = (place, colour, share) => {
    for (let c = 0; c < 3; c++) pixels.data[4 * place + c] = (1 - share) * pixels.data[4 * place + c] + share * colour[c];
  };
  for (let place = 0; place < size; place++) {
    pixels.data.set([image[place], image[place], image[place], 255], 4 * place);
    const column = place % width, row = (place - column) / width, found = prediction[place];
    if (layers.prediction && found) {
      tint(place, COLOURS[order.indexOf(String(found)) % COLOURS.length], hasEdge(prediction, place, column, row, view) ? 0.85 : 0.35);
    }
    if (layers.disagreement && found !== truth[place]) tint(place, WRONG, 0.7);
    if (layers.truth && hasEdge(truth, place, column, row, view)) tint(place, TRUTH, 0.9);
  }
  return pixels;
}

function showNames({ names }) {
  const items = Object.values(names).map((name, n) => {
    const item = document.createElement("li"), key = document.createElement("i");
    key.className = "key";
    key.style.background = `rgb(${COLOURS[n % COLOURS.length]})`;
    item.append(key, name);
    return item;
  });
  document.getElementById("viewer-names").replaceChildren(...items);
}

async function startViewer(data) {
  const views = JSON.parse(data.textContent), box = document.querySelector(".viewer");
  const [canvas, choice, slider] = ["slice", "viewer-case", "viewer-slice"].map((id) => document.getElementById(id));
  const output = box.querySelector("output"), boxes = [...box.querySelectorAll("[data-layer]")];
  const state = { view: null, layers: {} };
  const plain = document.createElement("canvas");

  function draw() {
    const { view } = state, slice = slider.valueAsNumber - 1;
    for (const each of boxes) state.layers[each.dataset.layer] = each.checked;
    plain.getContext("2d").putImageData(paintSlice(view, slice, state.layers), 0, 0);
    canvas.getContext("2d").drawImage(plain, 0, 0, canvas.width, canvas.height);
    output.textContent = `${slice + 1} of ${view.depth}`;
    canvas.setAttribute("aria-label", `${view.label}, slice ${slice + 1} of ${view.depth}`);
    box.dispatchEvent(new CustomEvent("layers"));
  }

  async function show() {
    const view = await readView(views[choice.value]);
    state.view = view;
    const [, tall, wide] = view.spacing, scale = Math.max(1, Math.ceil(480 / view.width));
    [plain.width, plain.height] = [view.width, view.height];
    [canvas.width, canvas.height] = [view.width * scale, Math.round(view.height * scale * tall / wide)];
    const marked = Array.from({ length: view.depth }, (_, z) => {
      const size = view.width * view.height;
      return view.volumes.truth.subarray(z * size, (z + 1) * size).reduce((sum, value) => sum + (value > 0), 0);
    });
    slider.max = view.depth;
    slider.value = marked.indexOf(Math.max(...marked)) + 1;
    const left = view.step.map((step, axis) => [step, ["slices", "rows", "columns"][axis]]).filter(([step]) => step > 1);
    const thinned = left.length ? ` Thinned out: one of ${left.map(([step, name]) => `${step} ${name}`).join(", one of ")}.` : "";
    document.getElementById("viewer-note").textContent =
      `Left edge: ${view.letters[0]} of the patient; top: ${view.letters[1]}.${thinned} Cropped to the body.`;
    showNames(view);
    draw();
    box.dispatchEvent(new CustomEvent("case"));
  }

  function step(event) {
    const by = { ArrowUp: 1, ArrowDown: -1, PageUp: 5, PageDown: -5 }[event.key];
    if (!by) return;
    event.preventDefault();
    slider.value = slider.valueAsNumber + by;
    draw();
  }

  box.hidden = false;
  choice.addEventListener("change", show);
  slider.addEventListener("input", draw);
  canvas.addEventListener("keydown", step);
  canvas.addEventListener("wheel", (event) => {
    if (document.activeElement !== canvas) return; // the page scrolls
    event.preventDefault();
    slider.value = slider.valueAsNumber - Math.sign(event.deltaY);
    draw();
  }, { passive: false });
  for (const each of boxes) each.addEventListener("change", draw);
  await show();
  offerVolume(state, box);
}

const viewData = document.getElementById("views");
if (viewData) startViewer(viewData);
