// Everything here is a convenience: without it the page searches, filters and pages just the same.
"use strict";

const LIVE_EVERY_MS = 2000;
const STATUS_EVERY_MS = 1000;

const format = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

// Times are written in UTC by the server; people think in the time of their wall clock.
function showLocalTimes(root) {
  const today = new Date().toDateString();
  for (const time of root.querySelectorAll("time[datetime]")) {
    const moment = new Date(time.dateTime);
    if (Number.isNaN(moment.getTime())) continue;
    time.textContent = (moment.toDateString() === today ? clock : format).format(moment);
  }
}

function localInputValue(moment) {
  const shifted = new Date(moment.getTime() - moment.getTimezoneOffset() * 60000);
  return shifted.toISOString().slice(0, 19);
}

function prepareForm(form) {
  for (const hidden of form.querySelectorAll("[data-time]")) {
    const moment = new Date(hidden.value);
    const visible = form.querySelector(`[data-local=${hidden.dataset.time}]`);
    if (hidden.value.includes("T") && !Number.isNaN(moment.getTime())) {
      visible.value = localInputValue(moment);
      // The visible field speaks for it from now on, also when it is emptied.
      hidden.remove();
    }
  }
  // The browser knows its time zone and the server does not, so times leave here in UTC; empty fields stay at home.
  form.addEventListener("formdata", (event) => {
    for (const visible of form.querySelectorAll("[data-local]")) {
      if (!visible.value) continue;
      event.formData.delete(visible.name);
      event.formData.set(visible.name, new Date(visible.value).toISOString().replace(".000Z", "Z"));
    }
    for (const [name, value] of [...event.formData.entries()]) {
      if (value !== "") continue;
      const kept = event.formData.getAll(name).filter((other) => other !== "");
      event.formData.delete(name);
      for (const other of kept) event.formData.append(name, other);
    }
  });
  for (const select of form.querySelectorAll("select:not([multiple])")) {
    select.addEventListener("change", () => form.requestSubmit());
  }
}

function prepareKeys() {
  const box = document.getElementById("q");
  if (!box) return;
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input, select, textarea");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      box.focus();
      box.select();
    }
  });
  if (document.activeElement === box) box.setSelectionRange(box.value.length, box.value.length);
}

// A row and its box in the picture light up together.
function prepareLines(root) {
  const light = (number, on) => {
    for (const part of root.querySelectorAll(`[data-line="${number}"]`)) part.classList.toggle("active", on);
  };
  for (const row of root.querySelectorAll("tr[data-line]")) {
    for (const name of ["mouseenter", "focus"]) row.addEventListener(name, () => light(row.dataset.line, true));
    for (const name of ["mouseleave", "blur"]) row.addEventListener(name, () => light(row.dataset.line, false));
  }
}

// Runs one piece of work again and again while somebody looks, never twice at once.
function repeat(everyMs, work) {
  let stopped = false;
  const next = async () => {
    if (stopped) return;
    if (!document.hidden) await work();
    if (!stopped) setTimeout(next, everyMs);
  };
  next();
  return () => { stopped = true; };
}

async function get(address) {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), 10000);
  try {
    const answer = await fetch(address, { signal: abort.signal });
    return answer.ok ? answer : null;
  } catch {
    return null;
  } finally {
    clearTimeout(timer);
  }
}

function prepareStatus(strip) {
  const count = new Intl.NumberFormat();
  const show = {
    delay_s: (value) => (value === null ? "–" : value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(1)} s`),
    texts_per_s: (value) => value.toFixed(value < 10 ? 1 : 0),
  };
  repeat(STATUS_EVERY_MS, async () => {
    const answer = await get("/status");
    strip.classList.toggle("stale", answer === null);
    if (answer === null) return;
    const status = await answer.json();
    for (const place of strip.querySelectorAll("[data-status]")) {
      const name = place.dataset.status;
      place.textContent = (show[name] ?? ((value) => count.format(value)))(status[name]);
    }
    strip.hidden = false;
  });
}

// Cards that are still there stay as they are, so that pictures do not flicker and the focus stays where it was.
function prepareLive(label) {
  const box = label.querySelector("input");
  const source = new WeakMap();
  const remember = (root) => {
    for (const card of root.querySelectorAll(".card")) source.set(card, card.outerHTML);
  };
  remember(document);
  const refresh = async () => {
    const answer = await get(location.href);
    if (answer === null || !box.checked) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("content");
    const content = document.getElementById("content");
    const focused = document.activeElement;
    const known = new Map([...content.querySelectorAll(".card")].map((card) => [source.get(card), card]));
    for (const card of fresh.querySelectorAll(".card")) {
      const old = known.get(card.outerHTML);
      if (old) {
        card.replaceWith(old);
      } else {
        source.set(card, card.outerHTML);
        card.classList.add("new");
      }
    }
    const help = content.querySelector(".help");
    const freshHelp = fresh.querySelector(".help");
    if (help && freshHelp) freshHelp.open = help.open;
    showLocalTimes(fresh);
    content.replaceChildren(...fresh.childNodes);
    if (focused !== document.activeElement && content.contains(focused)) focused.focus({ preventScroll: true });
  };
  let stop = () => {};
  const turn = () => {
    stop();
    stop = box.checked ? repeat(LIVE_EVERY_MS, refresh) : () => {};
    try {
      localStorage.setItem("ocrstream-live", box.checked ? "on" : "off");
    } catch {
      // Without storage the choice lasts as long as the page.
    }
  };
  try {
    box.checked = localStorage.getItem("ocrstream-live") === "on";
  } catch {
    box.checked = false;
  }
  box.addEventListener("change", turn);
  label.hidden = false;
  if (box.checked) turn();
}

const live = document.querySelector("label.live");
const onFirstPage = !new URLSearchParams(location.search).has("page");
// Before the times become local: the cards are compared as the server writes them.
if (live && onFirstPage) prepareLive(live);
showLocalTimes(document);
prepareKeys();
prepareLines(document);
for (const form of document.querySelectorAll("#ask")) prepareForm(form);
const strip = document.getElementById("status");
if (strip) prepareStatus(strip);
