/* Histories of a run: rates and latencies over time, with the faults as shaded spans. Nothing is drawn without one. */

/* the largest of 1, 2, 5 times a power of ten that gives at least `parts` steps */
function ticks(most, parts) {
  const power = 10 ** Math.floor(Math.log10(most / parts || 1));
  const step = [5, 2, 1].map((times) => times * power).find((size) => most / size >= parts) || power;
  return Array.from({length: Math.floor(most / step) + 1}, (_, number) => number * step);
}

/* one drawing: series = [{name, points: [[second, value or null], …]}], spans = [{label, begin, end}] */
function plot({series, spans = [], unit}) {
  const width = 720, high = 170, left = 58, right = 8, top = 24, bottom = 24;
  const points = series.flatMap((one) => one.points), measured = points.filter(([, value]) => value !== null);
  if (!measured.length) return make('p', {class: 'faint'}, 'No value was measured.');
  const end = Math.max(...points.map(([second]) => second), ...spans.map((span) => span.end), 1);
  const most = Math.max(...measured.map(([, value]) => value)) || 1;
  const x = (second) => left + second / end * (width - left - right), y = (value) => high - bottom - value / most * (high - top - bottom);
  const number = (value) => value >= 100 ? value.toFixed(0) : +value.toPrecision(3);
  const line = (one) => one.points.map(([second, value], at) => value === null ? '' : `${at && one.points[at - 1][1] !== null ? 'L' : 'M'}${x(second).toFixed(1)} ${y(value).toFixed(1)}`).join('');
  const words = series.map((one) => {
    const values = one.points.map(([, value]) => value).filter((value) => value !== null);
    return `${one.name}: ${number(Math.min(...values))} to ${number(Math.max(...values))} ${unit}`;
  });
  const faults = spans.map((span) => `${span.label} from ${number(span.begin)} s to ${number(span.end)} s`);
  return make('figure', {}, make('svg', {class: 'plot', viewBox: `0 0 ${width} ${high}`, role: 'img', 'aria-label': [...words, ...faults].join('; ')},
    spans.map((span) => [make('rect', {class: 'span', x: x(span.begin), y: top, width: Math.max(2, x(span.end) - x(span.begin)), height: high - top - bottom}),
      make('text', {class: 'label', x: x(span.begin) + 3, y: top - 8}, span.label)]).flat(),
    ticks(most, 3).map((value) => [make('line', {class: 'axis', x1: left, x2: width - right, y1: y(value), y2: y(value)}), make('text', {x: left - 6, y: y(value) + 4, 'text-anchor': 'end'}, `${number(value)}`)]).flat(),
    ticks(end, 5).map((second) => make('text', {x: x(second), y: high - 6, 'text-anchor': 'middle'}, `${number(second)} s`)),
    series.map((one, at) => make('path', {class: `line line-${at}`, d: line(one)})),
    series.flatMap((one) => one.points.filter(([, value], at) => value !== null && [one.points[at - 1], one.points[at + 1]].every((other) => !other || other[1] === null)).map(([second, value]) => make('circle', {class: 'dot', cx: x(second), cy: y(value), r: 2.5})))),
  make('figcaption', {}, words.map((text, at) => make('span', {class: `curve curve-${at}`}, text))));
}

(async () => {
  const place = by('#histories'), data = await evidence;
  for (const history of data.histories || []) {
    const units = [...new Set(history.series.map((one) => one.unit))];
    place.append(make('article', {class: 'history'}, make('h3', {}, make('a', {href: `#row=${history.topology}/${history.check}`}, `${history.title} on ${history.topology}`)),
      units.map((unit) => plot({series: history.series.filter((one) => one.unit === unit), spans: history.spans, unit}))));
  }
})();
