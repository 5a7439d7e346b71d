// A scatter chart in SVG: axes, intervals, lines, points; pointer and keyboard reach the same points.
//
//   points   {x, y, xLow, xHigh, yLow, yHigh, series, label, mark, row}; values in shown units
//   lines    {points: [[x, y], ...], colour, dash}
//   mark     'best', 'tied' or '' ; beyond MANY points only marked ones are drawn with intervals

const MANY = 400;
const RANK = { best: 0, tied: 1, '': 2 };
const EDGE = { top: 26, right: 14, bottom: 52, left: 62 };

function shapePath(shape, x, y, r) {
  const at = (...pairs) => 'M' + pairs.map(([dx, dy]) => `${(x + dx * r).toFixed(1)},${(y + dy * r).toFixed(1)}`).join('L') + 'Z';
  switch (shape) {
    case 'square': return at([-.9, -.9], [.9, -.9], [.9, .9], [-.9, .9]);
    case 'triangle': return at([0, -1.15], [1.1, .85], [-1.1, .85]);
    case 'down': return at([0, 1.15], [1.1, -.85], [-1.1, -.85]);
    case 'diamond': return at([0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]);
    case 'plus': return at([-.4, -1.2], [.4, -1.2], [.4, -.4], [1.2, -.4], [1.2, .4], [.4, .4], [.4, 1.2], [-.4, 1.2], [-.4, .4], [-1.2, .4], [-1.2, -.4], [-.4, -.4]);
    case 'cross': return at([-1.1, -.6], [-.6, -1.1], [0, -.5], [.6, -1.1], [1.1, -.6], [.5, 0], [1.1, .6], [.6, 1.1], [0, .5], [-.6, 1.1], [-1.1, .6], [-.5, 0]);
    default: return `M${(x - r).toFixed(1)},${y.toFixed(1)}a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0Z`;
  }
}

function niceStep(span, wanted) {
  const raw = span / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  return [1, 2, 2.5, 5, 10].map((item) => item * power).find((item) => item >= raw);
}

function scale(values, log, from, to) {
  const seen = values.filter((item) => item !== null && Number.isFinite(item) && (!log || item > 0));
  let low = Math.min(...minmax(seen)), high = Math.max(...minmax(seen));
  if (!seen.length) { low = log ? 1 : 0; high = log ? 10 : 1; }
  const bend = log ? Math.log10 : (item) => item;
  let start = bend(low), end = bend(high);
  const room = (end - start || Math.abs(start) * 0.1 || 1) * 0.06;
  const touches = !log && low >= 0 && start - room < 0;
  start = touches ? 0 : start - room;
  end += room;
  const at = (item) => from + (bend(item) - start) / (end - start) * (to - from);
  const ticks = [];
  const wanted = Math.max(3, Math.abs(to - from) / 85);
  if (log && end - start > 0.7) {
    const steps = end - start > 3 ? [1] : end - start > 1.4 ? [1, 3] : [1, 2, 5];
    for (let power = Math.floor(start); power <= end; power++) {
      for (const step of steps) {
        const item = step * 10 ** power;
        if (bend(item) >= start && bend(item) <= end) ticks.push(item);
      }
    }
  } else {
    const least = log ? 10 ** start : start, most = log ? 10 ** end : end;
    const step = niceStep(most - least, wanted);
    for (let index = Math.ceil(least / step); index * step <= most + step * 1e-9; index++) ticks.push(index * step);
  }
  return { at, ticks, clamp: (item) => Math.min(Math.max(at(item), Math.min(from, to)), Math.max(from, to)) };
}

function minmax(values) {
  let low = Infinity, high = -Infinity;
  for (const item of values) { if (item < low) low = item; if (item > high) high = item; }
  return [low, high];
}

const tickText = (item, digits = 4) => {
  const size = Math.abs(item), shown = Number(item.toPrecision(digits));
  return size !== 0 && (size >= 1e5 || size < 1e-3) ? shown.toExponential() : String(shown);
};

// Texts of an axis, with so many digits that each is exact to a hundredth of the distance between two ticks.
function tickTexts(ticks) {
  const step = Math.min(...ticks.slice(1).map((item, index) => item - ticks[index]));
  const exact = (digits) => ticks.every((item) => Math.abs(Number(tickText(item, digits)) - item) <= step / 100);
  let digits = 4;
  while (digits < 15 && !exact(digits)) digits += 1;
  return ticks.map((item) => tickText(item, digits));
}

class Scatter {
  constructor({ label, onActive, onPin }) {
    this.onActive = onActive || (() => {});
    this.onPin = onPin || null;
    this.active = null;
    this.held = false; // after a click the pointer may move to the panel without changing it
    this.note = freshId('keys');
    this.node = el('div', {
      class: 'chart', tabindex: '0', role: 'group', 'aria-roledescription': 'chart', 'aria-label': label,
      'aria-describedby': this.note,
      onkeydown: (event) => this.key(event),
      onpointermove: (event) => { if (event.pointerType !== 'touch') this.point(event); },
      onclick: (event) => this.click(event),
      onfocus: () => { if (this.active === null && this.order && this.order.length) this.activate(this.order[0]); },
    });
    this.hint = el('p', { class: 'soft keys', id: this.note },
      this.onPin ? 'Move the pointer to an engine, or use the arrow keys, to see its details. A click or Enter pins it; two pinned engines are compared. After a click, the details stay until you click on an empty area or press Escape.'
        : 'Move the pointer to a mark, or use the arrow keys, to see its values.');
    this.legend = el('ul', { class: 'legend' });
    this.root = el('div', { class: 'chart-box' }, this.node, this.legend, this.hint);
    new ResizeObserver(() => { if (this.spec && this.node.clientWidth !== this.width) this.draw(this.spec); }).observe(this.node);
  }

  draw(spec) {
    this.spec = spec;
    const { points, lines, x, y } = spec;
    const width = this.width = this.node.clientWidth || 640;
    const height = this.height = Math.round(Math.min(470, Math.max(300, width * 0.62)));
    const right = width - EDGE.right, bottom = height - EDGE.bottom;
    const ends = (low, item, high) => points.flatMap((point) => [point[low], point[item], point[high]]);
    const sx = this.sx = scale(ends('xLow', 'x', 'xHigh'), x.log, EDGE.left, right);
    const sy = this.sy = scale(ends('yLow', 'y', 'yHigh'), y.log, bottom, EDGE.top);
    const drawn = svg('svg', { viewBox: `0 0 ${width} ${height}`, width, height, 'aria-hidden': 'true', focusable: 'false' });
    drawn.append(this.axes(x, y, width, right, bottom));
    for (const line of lines || []) {
      drawn.append(svg('path', {
        d: line.points.map(([px, py], index) => `${index ? 'L' : 'M'}${sx.at(px).toFixed(1)},${sy.at(py).toFixed(1)}`).join(''),
        class: `line ${line.kind || ''}`, css: { stroke: line.colour || 'var(--soft)' },
      }));
    }
    this.positions = points.map((point) => [sx.at(point.x), sy.at(point.y)]);
    this.order = points.map((_, index) => index).sort((a, b) => points[a].x - points[b].x || points[a].y - points[b].y);
    drawn.append(...this.marks(points));
    drawn.append(this.labels(points, right));
    this.ring = svg('g', {});
    drawn.append(this.ring);
    this.node.replaceChildren(drawn);
    this.key_(points, spec.keys || []);
    if (this.active !== null && this.active >= points.length) this.active = null;
    this.rings();
  }

  axes(x, y, width, right, bottom) {
    const item = svg('g', { class: 'axes' });
    const xTexts = tickTexts(this.sx.ticks), yTexts = tickTexts(this.sy.ticks);
    for (const [index, tick] of this.sx.ticks.entries()) {
      const at = this.sx.at(tick);
      item.append(svg('line', { x1: at, x2: at, y1: EDGE.top, y2: bottom, class: 'gridline' }),
        svg('text', { x: at, y: bottom + 16, 'text-anchor': 'middle' }, xTexts[index]));
    }
    for (const [index, tick] of this.sy.ticks.entries()) {
      const at = this.sy.at(tick);
      item.append(svg('line', { x1: EDGE.left, x2: right, y1: at, y2: at, class: 'gridline' }),
        svg('text', { x: EDGE.left - 6, y: at + 4, 'text-anchor': 'end' }, yTexts[index]));
    }
    item.append(svg('line', { x1: EDGE.left, x2: right, y1: bottom, y2: bottom, class: 'axis' }),
      svg('line', { x1: EDGE.left, x2: EDGE.left, y1: EDGE.top, y2: bottom, class: 'axis' }));
    wrap(x.label + (x.log ? ', logarithmic' : ''), (width - EDGE.left) / 6.4).slice(0, 2).forEach((text, index) => {
      item.append(svg('text', { x: right, y: bottom + 33 + 14 * index, 'text-anchor': 'end', class: 'title' }, text));
    });
    item.append(svg('text', { x: 2, y: 12, class: 'title' }, y.label + (y.log ? ', logarithmic' : '')));
    return item;
  }

  marks(points) {
    const many = points.length > MANY;
    const bars = svg('g', { class: 'bars' }), shown = svg('g', { class: 'points' });
    const bulk = new Map();
    const upwards = points.map((point, index) => [point, index]).sort(([a], [b]) => RANK[b.mark || ''] - RANK[a.mark || '']);
    upwards.forEach(([point, index]) => {
      const [px, py] = this.positions[index];
      if (!Number.isFinite(px) || !Number.isFinite(py)) return;
      if (many && !point.mark) {
        bulk.set(point.series, (bulk.get(point.series) || '') + shapePath(point.series.shape, px, py, 3));
        return;
      }
      if (point.xLow !== null && point.xLow !== undefined) {
        bars.append(svg('line', { x1: this.sx.clamp(point.xLow), x2: this.sx.clamp(point.xHigh), y1: py, y2: py }));
      }
      if (point.yLow !== null && point.yLow !== undefined) {
        bars.append(svg('line', { x1: px, x2: px, y1: this.sy.clamp(point.yLow), y2: this.sy.clamp(point.yHigh) }));
      }
      const r = point.mark === 'best' ? 6.5 : 5;
      shown.append(svg('path', {
        d: shapePath(point.series.shape, px, py, r), class: `point ${point.mark || 'under'}`,
        css: { '--fill': point.series.colour }, 'data-row': point.row ? point.row.index : null,
      }));
    });
    const under = svg('g', { class: 'points bulk' });
    for (const [series, d] of bulk) under.append(svg('path', { d, css: { fill: series.colour } }));
    return [under, bars, shown];
  }

  // Labels are drawn where there is space: right, left, above or below the point; otherwise left out.
  labels(points, right) {
    const taken = this.positions.map(([px, py]) => [px - 7, py - 7, px + 7, py + 7]);
    if (taken.length > MANY) taken.length = 0;
    const item = svg('g', { class: 'labels' });
    const wanted = points.map((point, index) => [point, index]).filter(([point]) => point.label)
      .sort(([a], [b]) => RANK[a.mark || ''] - RANK[b.mark || '']);
    for (const [point, index] of wanted.slice(0, 40)) {
      const [px, py] = this.positions[index];
      const long = point.label.length * 6.1;
      for (const [dx, dy, anchor] of [[8, -8, 'start'], [8, 16, 'start'], [-8, -8, 'end'], [-8, 16, 'end'], [12, 4, 'start'], [-12, 4, 'end'], [0, -14, 'middle'], [0, 24, 'middle']]) {
        const left = anchor === 'start' ? px + dx : anchor === 'end' ? px + dx - long : px - long / 2;
        const box = [left, py + dy - 10, left + long, py + dy + 3];
        const free = left > EDGE.left + 2 && box[2] < right && box[1] > EDGE.top - 8 && box[3] < this.height - EDGE.bottom
          && !taken.some((other, item) => item !== index && box[0] < other[2] && box[2] > other[0] && box[1] < other[3] && box[3] > other[1]);
        if (!free) continue;
        taken.push(box);
        item.append(svg('text', { x: px + dx, y: py + dy, 'text-anchor': anchor }, point.label));
        break;
      }
    }
    return item;
  }

  key_(points, keys) {
    const seen = new Map();
    for (const point of points) if (!seen.has(point.series.name)) seen.set(point.series.name, point.series);
    const entry = (mark, text) => el('li', {}, svg('svg', { width: 18, height: 18, viewBox: '0 0 18 18', 'aria-hidden': 'true' }, mark), el('span', {}, text));
    this.legend.replaceChildren(
      ...[...seen.values()].map((item) => entry(svg('path', { d: shapePath(item.shape, 9, 9, 5.5), class: 'point best', css: { '--fill': item.colour } }), item.name)),
      ...keys.map(({ kind, text }) => entry(kind === 'line' ? svg('path', { d: 'M1,9H17', class: 'line front', css: { stroke: 'var(--ink)' } })
        : kind === 'bar' ? svg('g', { class: 'bars' }, svg('line', { x1: 2, x2: 16, y1: 9, y2: 9 }))
          : svg('path', { d: shapePath('circle', 9, 9, 5.5), class: `point ${kind}`, css: { '--fill': 'var(--soft)' } }), text)));
  }

  nearest(event) {
    const box = this.node.getBoundingClientRect();
    const px = (event.clientX - box.left) * this.width / box.width, py = (event.clientY - box.top) * this.width / box.width;
    let closest = null, least = 28 ** 2;
    (this.positions || []).forEach(([x, y], index) => {
      const far = (x - px) ** 2 + (y - py) ** 2;
      if (far < least) { least = far; closest = index; }
    });
    return closest;
  }

  point(event) {
    if (this.held) return;
    const index = this.nearest(event);
    if (index !== null && index !== this.active) this.activate(index);
  }

  click(event) {
    const index = this.nearest(event);
    this.held = index !== null && !(this.held && index === this.active);
    if (index === null) return;
    this.activate(index);
    if (this.onPin) this.onPin(this.spec.points[index]);
  }

  key(event) {
    if (!this.order || !this.order.length) return;
    const here = this.order.indexOf(this.active);
    const step = { ArrowRight: here + 1, ArrowUp: here + 1, ArrowLeft: here - 1, ArrowDown: here - 1, Home: 0, End: this.order.length - 1 }[event.key];
    if (step !== undefined) {
      event.preventDefault();
      this.activate(this.order[Math.min(Math.max(step, 0), this.order.length - 1)], true);
    } else if (event.key === 'Escape') {
      this.held = false;
    } else if ((event.key === 'Enter' || event.key === ' ') && this.active !== null && this.onPin) {
      event.preventDefault();
      this.onPin(this.spec.points[this.active]);
    }
  }

  activate(index, spoken = false) {
    this.active = index;
    this.rings();
    this.onActive(this.spec.points[index], spoken);
  }

  rings() {
    if (!this.ring) return;
    const item = [];
    (this.spec.points || []).forEach((point, index) => {
      const pinned = this.spec.pinned && point.row ? this.spec.pinned.findIndex((row) => row.index === point.row.index) : -1;
      const [px, py] = this.positions[index];
      if (pinned >= 0) {
        item.push(svg('circle', { cx: px, cy: py, r: 11, class: 'pinned' }),
          svg('text', { x: px + 12, y: py - 9, class: 'pin-name' }, 'AB'[pinned]));
      }
      if (index === this.active) item.push(svg('circle', { cx: px, cy: py, r: 9, class: 'active' }));
    });
    this.ring.replaceChildren(...item);
  }
}

function wrap(text, most) {
  const lines = [''];
  for (const word of text.split(' ')) {
    const last = lines[lines.length - 1];
    if (last && last.length + word.length + 1 > most) lines.push(word);
    else lines[lines.length - 1] = last ? `${last} ${word}` : word;
  }
  return lines;
}
