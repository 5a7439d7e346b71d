// The table of all results.

function enginesSection() {
  if (!ROWS.length) return;
  const older = ROWS.filter((row) => !row.latest).length;
  const hosts = new Set(ROWS.map((row) => row.host)).size, tasks = new Set(ROWS.map((row) => row.task)).size;
  const verdict = (row) => {
    const fronts = row.group && row.latest ? frontierOf(row.group, 'quality', 'latency') : [];
    return fronts.map((front) => verdictOf(row, front)).find(Boolean) || null;
  };
  const word = (entry) => (entry === null ? '–' : entry.word.startsWith('dominated, but') ? '~ indistinguishable' : entry.word === 'dominated' ? 'dominated' : '● on it');
  const open = el('div', { class: 'panel', 'aria-live': 'off' });
  const show = (row) => {
    open.replaceChildren(details(row, row.group ? frontierOf(row.group, 'quality', 'latency')[0] : null));
    open.scrollIntoView({ block: 'nearest' });
    announce(`Details of ${row.name} are below the table.`);
  };
  const columns = [
    { key: 'name', title: 'engine', align: 'word', sort: (row) => row.name,
      text: (row) => el('button', { type: 'button', class: 'link', onclick: () => show(row) }, row.name) },
    { key: 'pin', title: 'compare', align: 'word', text: (row) => pinButton(row) },
    tasks > 1 ? { key: 'task', title: 'task', align: 'word', sort: (row) => row.task, text: (row) => row.task } : null,
    hosts > 1 ? { key: 'host', title: 'host', align: 'word', sort: (row) => row.host, text: (row) => row.host } : null,
    ...[...OBJECTIVES].sort((a, b) => order(a) - order(b)).map((criterion) => ({
      key: criterion.name, hint: criterion.label, sort: (row) => valueOf(row, criterion.name),
      title: criterion.name === 'quality' ? 'score, 95 %' : `${TITLES[criterion.name] || criterion.short}${unitSymbol(criterion.unit) ? `, ${unitSymbol(criterion.unit)}` : ''}${energetic(criterion.name) && METERED.length ? ` (${METERED.join(', ')})` : ''}`,
      text: (row) => cell(row, criterion),
    })),
    { key: 'loss', title: 'loss ≤ 1 point?', align: 'word', sort: (row) => (row.loss ? Object.keys(LOSSES).indexOf(row.loss[0]) : 9), text: lossChip },
    { key: 'n', title: 'n', sort: (row) => row.n, text: (row) => String(row.n) },
    { key: 'source', title: 'energy source', align: 'word', sort: sourceOf, text: sourceOf },
    { key: 'front', title: 'latency frontier', align: 'word', sort: (row) => -(verdict(row)?.p ?? -1), text: (row) => { const entry = verdict(row); return entry ? `${word(entry)}, P ${fixed(entry.p, 2)}${entry.proven ? ', proven' : ''}` : '–'; } },
    { key: 'technique', title: 'reduction', align: 'word', sort: (row) => `${row.technique} ${row.level_text}`, text: (row) => (row.technique === 'full' ? 'none' : `${row.technique}: ${row.level_text}`) },
    { key: 'precision', title: 'precision', align: 'word', sort: (row) => row.precision, text: (row) => row.precision },
    { key: 'backend', title: 'backend', align: 'word', sort: (row) => row.backend, text: (row) => row.backend },
    { key: 'gates', title: 'failed gates', sort: (row) => row.failed_gates.length, text: (row) => (row.failed_gates.length ? el('span', { class: 'bad', title: row.failed_gates.map((entry) => entry.join(': ')).join('\n') }, `✗ ${row.failed_gates.length}`) : '0') },
    { key: 'started', title: 'measured', align: 'word', sort: (row) => row.started, text: (row) => row.started.slice(0, 16).replace('T', ' ') },
  ].filter(Boolean);
  const table = new DataTable({
    caption: 'All results', columns, rows: ROWS, sort: 'quality', descending: true,
    rowClass: (row) => (verdict(row)?.word === 'on the frontier' ? 'best' : row.latest ? null : 'older'),
    filters: [
      { label: 'Task', value: (row) => row.task }, { label: 'Host', value: (row) => row.host },
      { label: 'Reduction', value: (row) => row.technique }, { label: 'Precision', value: (row) => row.precision },
      { label: 'Backend', value: (row) => row.backend },
    ],
  });
  PINS.watchers.push(() => table.update());
  section('engines', 'All results', soft(`Select an engine for its details and the provenance of its numbers.${older ? ` Grey: ${count(older, 'older result')} of engines that have a newer result.` : ''}`), table.root, open);
}

const FIRST = ['quality', 'latency', 'latency_p90', 'cpu_time', 'energy', 'memory', 'size'];
const order = (criterion) => (FIRST.indexOf(criterion.name) + FIRST.length + 1) % (FIRST.length + 1);
const TITLES = { latency: 'p50', latency_p90: 'p90', latency_p99: 'p99', cpu_time: 'CPU time', memory: 'peak memory', size: 'size' };

function cell(row, criterion) {
  const value = valueOf(row, criterion.name);
  if (value === null) return '–';
  const around = interval(lowOf(row, criterion.name), highOf(row, criterion.name), criterion.unit);
  return [inColumn(value, criterion.unit), around && el('small', {}, ` ${around}`)];
}

function limitationsSection() {
  const failed = ROWS.filter((row) => row.latest && row.failed_gates.length);
  const reasons = new Map();
  for (const row of ROWS) {
    const why = row.energy[0]?.reason;
    if (row.latest && why) reasons.set(why, (reasons.get(why) || 0) + 1);
  }
  if (!failed.length && !DATA.failures.length && !reasons.size) return;
  const parts = [];
  for (const [why, number] of reasons) parts.push(el('p', { class: 'note' }, el('strong', {}, 'Energy unavailable'), ` for ${count(number, 'engine')}: ${why}.`));
  if (DATA.failures.length) {
    parts.push(el('h3', {}, 'Not measured'), new DataTable({
      caption: 'Engines that could not be measured', rows: DATA.failures.map((entry) => ({ ...entry, name: entry.engine })),
      columns: [
        { key: 'engine', title: 'engine', align: 'word', sort: (row) => row.engine, text: (row) => row.engine },
        { key: 'failure', title: 'reason', align: 'word wide', text: (row) => row.failure },
        { key: 'host', title: 'host', align: 'word', sort: (row) => row.host, text: (row) => row.host },
        { key: 'started', title: 'started', align: 'word', sort: (row) => row.started, text: (row) => row.started },
      ],
    }).root);
  }
  if (failed.length) {
    parts.push(el('h3', {}, 'Failed gates'), new DataTable({
      caption: 'Failed gates',
      rows: failed.flatMap((row) => row.failed_gates.map(([gate, seen]) => rowWith(row, { gate, seen }))),
      columns: [
        { key: 'name', title: 'engine', align: 'word', sort: (row) => row.name, text: (row) => row.name },
        { key: 'gate', title: 'gate', align: 'word', sort: (row) => row.gate, text: (row) => row.gate },
        { key: 'seen', title: 'detail', align: 'word wide', text: (row) => row.seen },
      ],
    }).root);
  }
  section('limitations', 'Limitations of these results', ...parts);
}
