"use strict";
// A table that is wider than the screen says so until its end is seen.
for (const table of document.querySelectorAll(".wide")) {
  const hint = () => table.parentElement.classList.toggle(
    "more", table.scrollWidth - table.clientWidth - table.scrollLeft > 4);
  table.addEventListener("scroll", hint, { passive: true });
  new ResizeObserver(hint).observe(table);
}
// Without a script there are no buttons.
for (const button of document.querySelectorAll("button[data-copies]")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    getSelection().selectAllChildren(document.getElementById(button.dataset.copies));
    // The newer way needs a page from a server.
    button.textContent = document.execCommand("copy") ? "copied" : "selected";
  });
}
// What is folded away is printed too.
addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
});
