// Keeps the parts of a page that change up to date. Every page works without it.
"use strict";

const live = document.querySelector("[data-live]");
if (live && "EventSource" in window) {
  const stream = new EventSource(live.dataset.live);
  const waiting = new Map();
  const show = (id, html) => {
    const region = document.getElementById(id);
    if (!region) return;
    if ("added" in region.dataset) {
      const newer = Number(html) - Number(region.dataset.added);
      region.hidden = !(newer > 0);
      region.querySelector("b").textContent = newer;
      return;
    }
    // whoever stands in a part with the keyboard, or marks text in it, is not disturbed
    const busy = region.contains(document.activeElement) ||
      (!getSelection().isCollapsed && region.contains(getSelection().anchorNode));
    if (busy) {
      waiting.set(id, html);
    } else {
      waiting.delete(id);
      region.innerHTML = html;
    }
  };
  stream.onmessage = (message) => {
    live.classList.remove("stale");
    for (const [id, html] of [...waiting]) show(id, html);
    for (const [id, html] of Object.entries(JSON.parse(message.data))) show(id, html);
  };
  stream.onerror = () => live.classList.add("stale");
  addEventListener("pagehide", () => stream.close());
}

// A form is sent once, and one that asks first is sent after a yes.
addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.sent || (form.dataset.ask && !confirm(form.dataset.ask))) {
    event.preventDefault();
    return;
  }
  form.dataset.sent = "yes";
});
addEventListener("pageshow", () => {
  for (const form of document.forms) delete form.dataset.sent;
});
