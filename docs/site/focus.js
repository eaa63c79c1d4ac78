// Code that scrolls stays within reach of the keyboard: the theme takes the attribute away from blocks that it holds for narrow.
new MutationObserver((changes) => {
  for (const { target } of changes) {
    if (target.matches("pre > code") && !target.hasAttribute("tabindex")) target.tabIndex = 0;
  }
}).observe(document.documentElement, { subtree: true, attributes: true, attributeFilter: ["tabindex"] });
