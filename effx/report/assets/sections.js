// Further sections from JSON files: text, charts of series, heat maps, tables.

function extraSections() {
  DATA.sections.forEach((entry, number) => {
    const parts = [entry.text && el('p', {}, entry.text), entry.source && soft(`Source: ${entry.source}.`)];
    for (const spec of entry.charts || []) parts.push(extraChart(spec));
    for (const spec of entry.maps || []) parts.push(extraMap(spec));
    for (const spec of entry.tables || []) parts.push(extraTable(spec));
    section(`extra-${number + 1}`, entry.title, ...parts);
  });
}

const axisText = (axis) => `${axis.label}${axis.unit ? `, ${axis.unit}` : ''}`;

function extraChart(spec) {
  const series = seriesOf(spec.series, (entry) => entry.name);
  const points = spec.series.flatMap((entry) => entry.points.map((point) => ({
    x: point.x, y: point.y, xLow: null, xHigh: null, yLow: point.low ?? null, yHigh: point.high ?? null, label: point.label, mark: '', series: series.get(entry.name), of: entry.name,
  })));
  const read = soft('');
  const chart = new Scatter({ label: spec.title, onActive: (point, spoken) => {
    read.textContent = `${point.of}: ${axisText(spec.x)} ${significant(point.x, 4)}; ${axisText(spec.y)} ${significant(point.y, 4)}${point.yLow === null ? '' : ` [${significant(point.yLow, 4)} to ${significant(point.yHigh, 4)}]`}`;
    if (spoken) announce(read.textContent);
  } });
  requestAnimationFrame(() => chart.draw({
    points, keys: points.some((point) => point.yLow !== null) ? [{ kind: 'bar', text: spec.interval || 'interval' }] : [],
    lines: spec.series.map((entry) => ({ points: [...entry.points].sort((a, b) => a.x - b.x).map((point) => [point.x, point.y]), colour: series.get(entry.name).colour })),
    x: { label: axisText(spec.x), log: Boolean(spec.x.log) }, y: { label: axisText(spec.y), log: Boolean(spec.y.log) },
  }));
  return el('figure', { class: 'extra' }, el('figcaption', {}, spec.title), chart.root, read);
}

function extraMap(spec) {
  const [least, most] = minmax(spec.values.flat().filter((entry) => entry !== null));
  return el('figure', { class: 'extra' }, el('figcaption', {}, `${spec.title}${spec.unit ? `, ${spec.unit}` : ''}`),
    el('div', { class: 'table', tabindex: '0', role: 'region', 'aria-label': spec.title }, el('table', { class: 'map' },
      el('thead', {}, el('tr', {}, el('th', { scope: 'col', class: 'word' }, spec.corner || ''), spec.columns.map((entry) => el('th', { scope: 'col' }, String(entry))))),
      el('tbody', {}, spec.values.map((values, index) => el('tr', {}, el('th', { scope: 'row', class: 'word' }, String(spec.rows[index])),
        values.map((entry) => (entry === null ? el('td', { class: 'none' }, '–')
          : el('td', { class: 'seq', css: { '--heat': `${Math.round(8 + 62 * (most > least ? (entry - least) / (most - least) : 0))}%` } }, significant(entry))))))))));
}

// A cell may have a text and the number that it is sorted by; without a number it comes last.
const isPrinted = (cell) => typeof cell === 'object' && cell !== null;
const cellSort = (cell) => (isPrinted(cell) ? cell.sort : cell);
function cellText(cell) {
  if (cell === null) return '–';
  if (isPrinted(cell)) return cell.text;
  return typeof cell === 'number' && !Number.isInteger(cell) ? significant(cell, 4) : String(cell);
}

function extraTable(spec) {
  const rows = spec.rows.map((cells) => ({ cells, name: cells.map((cell) => (cell === null ? '' : isPrinted(cell) ? cell.text : cell)).join(' ') }));
  return new DataTable({
    caption: spec.title, rows, sort: null,
    columns: spec.columns.map((column, index) => ({
      key: String(index), title: axisText(column), align: rows.some((row) => typeof row.cells[index] === 'string') ? 'word' : 'number',
      sort: (row) => cellSort(row.cells[index]),
      text: (row) => cellText(row.cells[index]),
    })),
  }).root;
}
