// Colours of the page, dark or light as the system is.

const of = (name) => {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
};

export const ink = () => of("--ink");
export const bodyColour = () => of("--body");

/** Calls back when the system changes from one to the other. */
export function onTheme(redraw) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}
