// Code and tables that scroll stay within reach of the keyboard: the theme takes the attribute away from code that it holds for
// narrow, and puts tables into boxes that have none.
const reach = (element) => { if (element.tabIndex !== 0) element.tabIndex = 0; };
new MutationObserver((changes) => {
  for (const { target } of changes) {
    if (target.matches("pre > code")) reach(target);
  }
  document.querySelectorAll(".md-typeset__scrollwrap").forEach(reach);
}).observe(document.documentElement, { subtree: true, childList: true, attributes: true, attributeFilter: ["tabindex"] });
