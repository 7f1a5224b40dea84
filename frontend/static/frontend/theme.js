// Light or dark before the first paint: the person's choice (a cookie, so the server renders it) or the system's.
(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const apply = (theme) => {
    root.dataset.bsTheme = theme;
    dispatchEvent(new Event("themechange"));
  };
  if (!("themeChosen" in root.dataset)) {
    apply(system.matches ? "dark" : "light");
    system.addEventListener("change", () => {
      if (!("themeChosen" in root.dataset)) apply(system.matches ? "dark" : "light");
    });
  }
  document.addEventListener("click", (event) => {
    if (!event.target.closest("#theme")) return;
    const theme = root.dataset.bsTheme === "dark" ? "light" : "dark";
    root.dataset.themeChosen = "";
    document.cookie = `theme=${theme}; path=/; max-age=31536000; SameSite=Lax${location.protocol === "https:" ? "; Secure" : ""}`;
    apply(theme);
  });
})();
