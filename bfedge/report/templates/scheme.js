"use strict";
(() => {
  const root = document.documentElement, system = matchMedia("(prefers-color-scheme: dark)");
  const button = document.createElement("button");
  const dark = () => (root.dataset.scheme || (system.matches ? "dark" : "light")) === "dark";
  const name = () => { button.textContent = dark() ? "Light" : "Dark"; };
  button.type = "button";
  button.className = "toggle";
  button.addEventListener("click", () => { root.dataset.scheme = dark() ? "light" : "dark"; name(); });
  system.addEventListener("change", name);
  name();
  document.querySelector(".kicker").append(button);
})();
