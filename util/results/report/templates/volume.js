// The 3-D view: NiiVue is unpacked when the reader asks for it. Without WebGL2 a sentence says so, and the slices stay.
function bytesLike(file, values) {
  const copy = new Uint8Array(file.slice(0));
  copy.set(values, HEADER_BYTES);
  return copy.buffer;
}

function labelColours(view, colours) {
  const values = [0, ...Object.keys(view.names).map(Number)];
  const channel = (c) => values.map((value, n) => (value ? colours[(n - 1) % colours.length][c] : 0));
  return { R: channel(0), G: channel(1), B: channel(2), A: values.map((v) => (v ? 255 : 0)), I: values, labels: values.map((v) => view.names[v] || "") };
}

async function loadNiivue(packed) {
  if (globalThis.niivue) return globalThis.niivue;
  const script = document.createElement("script");
  script.textContent = new TextDecoder().decode(await unzip(packed.textContent));
  document.head.append(script); // the page's policy allows this text by its hash
  return globalThis.niivue;
}

async function loadVolumes(viewer, { NVImage }, view) {
  for (const volume of [...viewer.volumes]) viewer.removeVolume(volume);
  const { truth, prediction } = view.volumes;
  const wrong = truth.map((value, place) => (value !== prediction[place] ? 1 : 0));
  const files = { ...view.files, disagreement: bytesLike(view.files.truth, wrong) };
  const colours = { truth: [[255, 255, 255]], prediction: COLOURS, disagreement: [WRONG] };
  const names = { disagreement: { ...view, names: { 1: "disagreement" } } };
  for (const name of ["image", "truth", "prediction", "disagreement"]) {
    const volume = await NVImage.new(files[name], `${name}.nii`, "gray", 1);
    viewer.addVolume(volume);
    if (colours[name]) volume.setColormapLabel(labelColours(names[name] || view, colours[name]));
  }
}

function offerVolume(state, box) {
  const packed = document.getElementById("niivue-bundle"), button = document.getElementById("open-volume");
  const [flat, deep] = ["slice", "volume"].map((id) => document.getElementById(id));
  if (!packed) return;
  if (!document.createElement("canvas").getContext("webgl2")) {
    document.getElementById("no-volume").hidden = false;
    return;
  }
  const opacity = { truth: 0.35, prediction: 0.6, disagreement: 0.8 };
  let viewer = null, isOpen = false;

  function showLayers() {
    if (!isOpen) return;
    Object.keys(opacity).forEach((name, n) => viewer.setOpacity(n + 1, state.layers[name] ? opacity[name] : 0));
  }

  async function showCase() {
    if (!isOpen) return;
    await loadVolumes(viewer, globalThis.niivue, state.view);
    viewer.updateGLVolume();
    showLayers();
    deep.parentNode.dataset.shows = state.view.label;
  }

  button.hidden = false;
  button.addEventListener("click", async () => {
    isOpen = !isOpen;
    [deep.parentNode.hidden, flat.hidden, box.querySelector(".slider").hidden] = [!isOpen, isOpen, isOpen];
    button.textContent = isOpen ? "Slices" : "3-D view";
    if (!isOpen) return;
    if (!viewer) {
      button.disabled = true;
      const { Niivue } = await loadNiivue(packed);
      viewer = new Niivue({
        logLevel: "error", loadingText: "", backColor: [0, 0, 0, 1], dragAndDropEnabled: false,
        isRadiologicalConvention: true, crosshairWidth: 0.5, show3Dcrosshair: true,
      });
      await viewer.attachToCanvas(deep);
      viewer.setSliceType(viewer.sliceTypeMultiplanar);
      viewer.opts.multiplanarShowRender = 1;
      button.disabled = false;
    }
    await showCase();
  });
  box.addEventListener("layers", showLayers);
  box.addEventListener("case", showCase);
}
