// What the pages of `fruitgan serve` do: take pictures, ask the server, show what came back; look again at runs.
"use strict";

const one = (selector, within = document) => within.querySelector(selector);
const drop = one(".drop"), ask = one("#ask"), strength = one("#strength");
let queue = Promise.resolve();

async function post(file, more = "") {
  const answer = await fetch(`${drop.dataset.api}?${ask.value}${more}`, { method: "POST", body: file });
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error || `the server refused (${answer.status})`);
  return answer;
}

function show(image, blob) {
  if (image.src) URL.revokeObjectURL(image.src);
  image.src = URL.createObjectURL(blob);
}

function save(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

// A card for a file; it is asked about one after the other, and once more where another bundle or detector is chosen.
function take(file, place) {
  const card = one("#result").content.firstElementChild.cloneNode(true);
  const status = one("[role=status]", card), before = one(".before", card), after = one(".after", card);
  one("h2", card).textContent = file.name;
  one(".cards").insertBefore(card, place);
  // What the browser cannot show, the server can: a strength of 0 is the source.
  before.onerror = () => { before.onerror = null; if (after) post(file, "&strength=0").then(it => it.blob()).then(it => show(before, it)).catch(() => {}); };
  show(before, file);
  card.again = () => {
    status.textContent = "waiting";
    queue = queue.then(async () => {
      status.textContent = "working";
      const answer = await post(file);
      if (after) translated(card, await answer.blob(), after); else judged(status, await answer.json());
      status.classList.remove("error");
      if (after) status.textContent = ["done", ...JSON.parse(answer.headers.get("Fruitgan-Notes"))].join(". ");
    }).catch(error => { status.textContent = error.message; status.classList.add("error"); });
  };
  if (after) {
    one(".split", card).oninput = event => card.style.setProperty("--split", `${event.target.value}%`);
    one("button", card).onclick = () => {
      const share = strength.value / 100, name = `${file.name.replace(/\.[^.]*$/, "")}-translated.png`;
      (share === 1 ? Promise.resolve(card.made) : post(file, `&strength=${share}`).then(it => it.blob())).then(it => save(it, name))
        .catch(error => { status.textContent = error.message; });
    };
  }
  if (file.size > Number(drop.dataset.largest)) {
    status.textContent = `the file is larger than ${drop.dataset.largest >> 20} MB`;
    status.classList.add("error");
    card.again = () => {};
  } else card.again();
}

function translated(card, blob, after) {
  card.made = blob;
  show(after, blob);
  one(".both", card).classList.add("done");
  for (const hidden of card.querySelectorAll("[hidden]")) hidden.hidden = false;
}

function judged(status, answer) {
  const percent = value => `${Math.round(100 * value)}%`;
  const sure = percent(answer.generated ? answer.probability : 1 - answer.probability);
  const verdict = answer.generated === null ? "undecided" : `${answer.generated ? "generated" : "real"}, ${sure} sure`;
  const outside = answer.outside.length ? [`It is unlike all that the detector was trained on: ${answer.outside.join("; ")}`] : [];
  const doubts = [...outside, ...answer.doubts].map(it => ` ${it}.`).join("");
  status.textContent = `${verdict}. On its own test pictures this detector is right ` +
    `in ${percent(answer.accuracy)} (${percent(answer.interval[0])} to ${percent(answer.interval[1])}).${doubts}`;
}

if (drop) {
  const takeAll = files => {
    const place = one(".cards").firstChild;  // the newest stand first, in their order
    for (const file of files) take(file, place);
  };
  const input = one("input", drop);
  input.onchange = () => { takeAll([...input.files]); input.value = ""; };
  document.addEventListener("paste", event => takeAll([...event.clipboardData.files]));
  for (const name of ["dragover", "dragleave", "drop"]) document.addEventListener(name, event => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragover");
    if (name === "drop") takeAll([...event.dataTransfer.files]);
  });
  ask.onchange = () => { for (const card of document.querySelectorAll(".result")) card.again(); };
  if (strength) strength.oninput = () => {
    document.body.style.setProperty("--strength", strength.value / 100);
    one("#percent").textContent = `${strength.value}%`;
  };
}

let live = one("[data-live]"), seen = live && live.outerHTML;
if (live) setInterval(async () => {
  const text = document.hidden ? null : await fetch(location.href).then(it => it.ok ? it.text() : null).catch(() => null);
  const now = text && one("[data-live]", new DOMParser().parseFromString(text, "text/html"));
  if (!now || now.outerHTML === seen) return;
  seen = now.outerHTML;
  live.replaceWith(now);
  live = now;
}, 3000);
