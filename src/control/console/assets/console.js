// The live log. Rows come as HTML that the gateway has escaped; nothing here reads what stands in them.
"use strict";

(function () {
  const list = document.getElementById("live");
  if (!list) {
    return;
  }
  const state = document.getElementById("live-state");
  const pause = document.getElementById("live-pause");
  const looks = document.getElementById("live-looks");
  const most = Number(list.dataset.rows);
  const waiting = [];
  let paused = false;
  let source = null;
  let over = false;
  let began = 0;
  let again = 0;
  // A stream that ended at once is not asked for at once.
  const shortest = 5000;

  const say = (text) => {
    if (state.textContent !== text) {
      state.textContent = text;
    }
  };

  const add = (html) => {
    list.insertAdjacentHTML("afterbegin", html);
    // A row that somebody has opened stays; the oldest of the others goes.
    while (list.children.length > most) {
      const closed = [...list.children].reverse().find((row) => !row.querySelector("details[open]"));
      (closed || list.lastElementChild).remove();
    }
  };

  const told = () => say(paused ? `paused, ${waiting.length} new` : "live");

  const connect = () => {
    began = Date.now();
    source = new EventSource(list.dataset.stream);
    source.addEventListener("open", () => {
      // A stream begins with the last rows, also when it begins again.
      list.replaceChildren();
      waiting.length = 0;
      pause.hidden = false;
      told();
    });
    source.addEventListener("row", (event) => {
      if (paused) {
        waiting.push(event.data);
        if (waiting.length > most) {
          waiting.shift();
        }
      } else {
        add(event.data);
      }
      told();
    });
    source.addEventListener("end", (event) => {
      source.close();
      const reason = JSON.parse(event.data).reason;
      if (reason === "token_expired") {
        say("connecting again");
        again = setTimeout(connect, Date.now() - began < shortest ? shortest : 0);
      } else {
        stop(`ended: ${reason}`);
      }
    });
    source.addEventListener("refused", (event) => {
      source.close();
      list.insertAdjacentHTML("beforebegin", event.data);
      stop("refused");
    });
    source.addEventListener("error", () => {
      if (over) {
        return;
      }
      if (source.readyState === EventSource.CLOSED) {
        stop("ended: load the page again");
      } else {
        say("connecting again");
      }
    });
  };

  const stop = (text) => {
    over = true;
    pause.hidden = true;
    say(text);
  };

  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Go on" : "Pause";
    if (!paused) {
      waiting.splice(0).forEach(add);
    }
    told();
  });

  const hide = () => list.classList.toggle("nolooks", looks.checked);
  looks.addEventListener("change", hide);
  hide();

  window.addEventListener("pagehide", () => {
    clearTimeout(again);
    source.close();
  });
  connect();
})();
