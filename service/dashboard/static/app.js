// Keeps the parts of a page that change up to date. Every page works without it.
"use strict";

const FIRST_PAUSE_MS = 5000;
const LONGEST_PAUSE_MS = 30000;

const live = document.querySelector("[data-live]");
if (live && "EventSource" in window) {
  const waiting = new Map();
  let stream;
  let timer;
  let pauseMs = FIRST_PAUSE_MS;
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
  const offerLogin = () => {
    const offer = document.createElement("p");
    offer.className = "problem alert";
    offer.setAttribute("role", "alert");
    const link = document.createElement("a");
    link.href = location.pathname + location.search;
    link.textContent = "Log in again";
    offer.append("The session has ended; these numbers stand still. ", link);
    live.before(offer);
    live.classList.replace("stale", "ended");
  };
  // a browser says nothing of the answer that ended its stream
  const sessionEnded = async () => {
    const asking = new AbortController();
    try {
      const { status } = await fetch(live.dataset.live, { signal: asking.signal });
      asking.abort();
      return status === 401;
    } catch {
      return false;
    }
  };
  const listen = () => {
    const mine = new EventSource(live.dataset.live);
    stream = mine;
    mine.onmessage = (message) => {
      pauseMs = FIRST_PAUSE_MS;
      live.classList.remove("stale");
      for (const [id, html] of [...waiting]) show(id, html);
      for (const [id, html] of Object.entries(JSON.parse(message.data))) show(id, html);
    };
    mine.onerror = () => {
      live.classList.add("stale");
      // after a connection that broke the browser tries again by itself, after another status never
      if (mine.readyState !== EventSource.CLOSED) return;
      timer = setTimeout(listen, pauseMs);
      pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS);
      sessionEnded().then((ended) => {
        if (!ended || stream !== mine) return;
        clearTimeout(timer);
        offerLogin();
      });
    };
  };
  listen();
  addEventListener("pagehide", () => {
    clearTimeout(timer);
    stream.close();
    stream = null;
  });
  addEventListener("pageshow", (event) => {
    if (event.persisted && !stream) listen();
  });
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
