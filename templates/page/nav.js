/* The navigation marks the part of the page that a reader looks at. */
const entries = all('nav a').map((link) => ({link, part: by(link.getAttribute('href'))})).filter(({part}) => part);
function mark() {
  const bar = by('nav ul'), left = document.documentElement.scrollHeight - innerHeight - scrollY;
  /* the last parts never reach the top of the window, so the line that they have to reach comes down to them */
  const line = bar.getBoundingClientRect().bottom + 60 + Math.max(0, innerHeight - 120 - left);
  const current = entries.filter(({part}) => part.getBoundingClientRect().top <= line).pop() || entries[0];
  if (current.link.hasAttribute('aria-current')) return;
  for (const {link} of entries) link.removeAttribute('aria-current');
  current.link.setAttribute('aria-current', 'location');
  const room = bar.clientWidth, at = current.link.offsetLeft - bar.offsetLeft;
  bar.scrollTo({left: at - (room - current.link.offsetWidth) / 2, behavior: 'instant'});
}
let marking = 0;
const later = () => { cancelAnimationFrame(marking); marking = requestAnimationFrame(mark); };
addEventListener('scroll', later, {passive: true});
addEventListener('resize', later);
later();
