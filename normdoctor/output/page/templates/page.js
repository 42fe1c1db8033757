"use strict";
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const remembered = (value) => {
    try {
      if (value) localStorage.setItem("normdoctor-theme", value);
      return localStorage.getItem("normdoctor-theme");
    } catch {
      return null; // a page from a file or in a frame may not remember anything
    }
  };
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const chosen = remembered();
  if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;

  const themes = (button) => {
    const tell = () => button.setAttribute("aria-pressed", String(isDark()));
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      remembered(root.dataset.theme);
      tell();
    });
    dark.addEventListener("change", tell);
    tell();
    button.hidden = false;
  };

  const filters = (form) => {
    const status = document.getElementById("status");
    const cards = [...document.querySelectorAll("#cards > .card")].map((card) => ({
      card,
      text: card.textContent.toLowerCase().replace(/\s+/g, " "),
    }));
    const noun = cards.length === 1 ? "finding" : "findings";
    const apply = () => {
      const given = new FormData(form);
      const levels = new Set(given.getAll("level"));
      const rule = given.get("rule");
      const target = given.get("target") ?? "*";
      const words = given.get("text").toLowerCase().split(/\s+/).filter(Boolean);
      let count = 0;
      for (const { card, text } of cards) {
        const fits =
          levels.has(card.dataset.level) &&
          (rule === "" || rule === card.dataset.rule) &&
          (target === "*" || target === card.dataset.target) &&
          words.every((word) => text.includes(word));
        card.hidden = !fits;
        count += fits;
      }
      const told = count === cards.length ? `All ${count} ${noun} shown` : `${count} of ${cards.length} ${noun} shown`;
      if (status.textContent !== told) status.textContent = told;
    };
    form.addEventListener("input", apply);
    form.addEventListener("reset", () => setTimeout(apply));
    form.addEventListener("submit", (event) => event.preventDefault());
    form.hidden = false;
    apply();
    // A link to a card that is filtered away shows it.
    addEventListener("hashchange", () => {
      const card = document.getElementById(location.hash.slice(1))?.closest(".card");
      if (card?.hidden) {
        form.reset();
        setTimeout(() => card.scrollIntoView());
      }
    });
  };

  const printing = () => {
    let closed = [];
    addEventListener("beforeprint", () => {
      closed = [...document.querySelectorAll("details:not([open])")];
      for (const one of closed) one.open = true;
    });
    addEventListener("afterprint", () => {
      for (const one of closed) one.open = false;
    });
  };

  addEventListener("DOMContentLoaded", () => {
    themes(document.getElementById("theme"));
    const form = document.getElementById("filters");
    if (form) filters(form);
    printing();
  });
})();
