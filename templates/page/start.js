/* a wide table is a list of cards on a narrow screen */
all('table.listed').filter((table) => table.tHead.rows[0].cells.length > 3).forEach(stack);
/* a part that scrolls sideways is a stop of the Tab key, so that the arrow keys can scroll it */
const scrolling = new ResizeObserver((entries) => {
  for (const {target} of entries) {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else if (!target.hasAttribute('role')) target.removeAttribute('tabindex');
  }
});
all('.wide, .band').forEach((part) => scrolling.observe(part));
route();
