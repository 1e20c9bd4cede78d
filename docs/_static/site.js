// What scrolls sideways on a narrow screen can be reached, and so scrolled, by keyboard.
function reachable() {
  for (const part of document.querySelectorAll("article pre, article table.docutils")) {
    if (part.scrollWidth > part.clientWidth) part.tabIndex = 0;
    else part.removeAttribute("tabindex");
  }
}

addEventListener("load", reachable);
addEventListener("resize", reachable);
