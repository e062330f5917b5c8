// Tiles: which layer they show, which of them are shown in which order, and one of them enlarged.
const sheet = document.getElementById("sheet"), list = sheet.querySelector(".tiles"), large = document.getElementById("large");
const layers = [...sheet.querySelectorAll("[name=layer]")];
const choices = Object.fromEntries(["split", "class", "order"].map((id) => [id, document.getElementById(id)]));
const everyTile = [...list.children];
let enlarged = null;

function showLayer() {
  const shown = layers.find((each) => each.checked).value, isBesides = shown !== "Image" && shown !== "Label";
  sheet.dataset.shown = shown;
  for (const each of sheet.querySelectorAll("[data-layer]")) each.toggleAttribute("hidden", each.dataset.layer !== shown);
  for (const each of sheet.querySelectorAll("[data-for]")) each.hidden = each.dataset.for !== shown;
  for (const tile of everyTile) {
    const own = [...tile.querySelectorAll("span[data-layer]")].some((each) => each.dataset.layer === shown);
    tile.querySelector(".absent").hidden = own || !isBesides;
  }
  if (enlarged) enlarge(enlarged);
}

function isWanted({ dataset }) {
  const wanted = choices.class?.value ?? "", own = dataset.classes.split(" ");
  if (choices.split.value && dataset.split !== choices.split.value) return false;
  return !wanted || (wanted === "none" ? !dataset.classes : own.includes(wanted));
}

function arrange() {
  const order = choices.order.value, sign = order === "labelled" ? -1 : 1;
  const key = ({ dataset }) => (dataset[order] === "" ? Infinity : sign * Number(dataset[order]));
  const sorted = [...everyTile].sort((a, b) => key(a) - key(b) || a.dataset.number - b.dataset.number);
  list.append(...sorted);
  for (const tile of everyTile) tile.hidden = !isWanted(tile);
  const n = everyTile.filter((tile) => !tile.hidden).length;
  document.getElementById("count").textContent = `${n} of ${everyTile.length} shown`;
}

function enlarge(tile) {
  enlarged = tile;
  large.querySelector(".stage").replaceChildren(tile.querySelector("svg").cloneNode(true));
  const told = tile.querySelector(".told").cloneNode(true), shown = document.createElement("span");
  shown.textContent = `Shown: ${layers.find((each) => each.checked).parentNode.textContent.trim()}`;
  large.querySelector(".large-told").replaceChildren(...told.children, shown);
  if (!large.open) large.showModal();
}

function step(by) {
  const shown = [...list.children].filter((tile) => !tile.hidden), next = shown[shown.indexOf(enlarged) + by];
  if (next) enlarge(next);
}

function stepLayer(by) {
  const next = layers[layers.findIndex((each) => each.checked) + by];
  if (!next) return;
  next.checked = true;
  showLayer();
}

list.addEventListener("click", ({ target }) => {
  const button = target.closest(".tile");
  if (button) enlarge(button.closest("li"));
});
large.addEventListener("keydown", (event) => {
  const cases = { ArrowLeft: -1, ArrowRight: 1 }[event.key], layer = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  if (!cases && !layer) return;
  event.preventDefault();
  if (cases) step(cases); else stepLayer(layer);
});
large.addEventListener("click", ({ target }) => {
  if (target === large || target.id === "close") large.close();
  else if (target.dataset.step) step(Number(target.dataset.step));
});
large.addEventListener("close", () => {
  enlarged.querySelector(".tile").focus();
  enlarged = null;
});
for (const each of layers) each.addEventListener("change", showLayer);
for (const each of Object.values(choices)) each?.addEventListener("change", arrange);
showLayer();
arrange();
