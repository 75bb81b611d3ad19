// Runs before the page is drawn, so that a dark page does not flash white, and before its modules: one of them that does not load stops them all, without a word.
(() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const apply = () => { document.documentElement.dataset.bsTheme = dark.matches ? "dark" : "light"; };
  dark.addEventListener("change", apply);
  apply();
  // Such an error reaches nobody above the element; only a listener that captures hears it.
  window.addEventListener("error", (event) => {
    if (event.target instanceof HTMLScriptElement) document.getElementById("incomplete")?.removeAttribute("hidden");
  }, true);
})();
